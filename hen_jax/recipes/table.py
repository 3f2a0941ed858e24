"""Every way to train, by the name in `config.recipe`: the only place that names a stage."""

from importlib import import_module
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.shapes import shown
from hen_jax.runs.stage import Stage

STAGES = {
    "sft": "hen_jax.recipes.sft",
    "emcl": "hen_jax.recipes.emcl",
    "reward": "hen_jax.recipes.reward",
    "preference": "hen_jax.recipes.preference",
    "regression": "hen_jax.recipes.regression",
    "experts": "hen_jax.recipes.experts",
    "experts_preference": "hen_jax.recipes.experts_preference",
    "router": "hen_jax.recipes.router",
    "policy": "hen_jax.recipes.policy",
    "muffin": "hen_jax.recipes.muffin",
    "pecer": "hen_jax.recipes.pecer",
}
"""Name -> the module whose `STAGE` it is, imported when it is asked for: each brings libraries."""


PIPELINE = "pipeline"
"""The recipe that is no stage: `hen_jax.verbs.pipeline` runs several, one after another."""


def stage_of(name: Any) -> Stage:
    """The stage of a recipe's name; raises `InputError` where there is none."""
    if name == PIPELINE:
        raise InputError("this config is a pipeline of stages; give the config of one of them")
    if not isinstance(name, str) or name not in STAGES:
        raise InputError(f"config.recipe is {shown(name)}; allowed: {', '.join(map(repr, STAGES))}")
    return import_module(STAGES[name]).STAGE

"""Every way to train, by the name in `config.recipe`: the only place that names a stage."""

from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.recipes import emcl, experts, policy, preference, quickstart, regression, reward, sft
from hen_jax.runs.stage import Stage

STAGES: dict[str, Stage] = {
    "sft": sft.STAGE,
    "quickstart": quickstart.STAGE,
    "emcl": emcl.STAGE,
    "reward": reward.STAGE,
    "preference": preference.STAGE,
    "regression": regression.STAGE,
    "experts": experts.STAGE,
    "policy": policy.STAGE,
}


def stage_of(name: Any) -> Stage:
    """The stage of a recipe's name; raises `InputError` where there is none."""
    if name not in STAGES:
        raise InputError(f"config.recipe is {name!r}; allowed: {', '.join(map(repr, STAGES))}")
    return STAGES[name]

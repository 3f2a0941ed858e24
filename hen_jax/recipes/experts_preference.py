"""Expert adapters trained on preferences: any objective of `recipes.preference`, side by side.

Each expert ends as a run of `preference` on its own sources would: its own prompts, denominators,
z0, clipping, moments and schedule. The reference is what the run starts from.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from hen_jax.adapters.experts import joint_lora
from hen_jax.core.errors import InputError
from hen_jax.core.rows import check_batch
from hen_jax.models.config import DecoderConfig
from hen_jax.planning.model_flops import RowShape, row_flops, scoring_flops
from hen_jax.recipes.changes import NARROW
from hen_jax.recipes.experts_preference_data import (
    ExpertPairBounds,
    ExpertsPreferenceSettings,
    feed,
    settings_alone,
)
from hen_jax.recipes.experts_settings import adapters, learning, rows
from hen_jax.recipes.preference import require_start
from hen_jax.runs.abstract import UPDATES
from hen_jax.runs.packed import check_shared_prompts
from hen_jax.runs.preferred import preference_load
from hen_jax.runs.reference import require_same_reference
from hen_jax.runs.stage import Job, Load, Stage, Work, guarded
from hen_jax.steps.experts import experts_step
from hen_jax.steps.preference import (
    completed,
    preference_loss,
    preference_score,
    preference_step,
)
from hen_jax.steps.preference_plan import PreferencePlan, with_reference
from hen_jax.training.optimizers import make_schedule


def work(
    settings: ExpertsPreferenceSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: ExpertPairBounds,
    steps: int,
) -> Work:
    """The objective of each expert over its own prompts; the log's learning rate is the longest
    run's."""
    named = adapters(settings)
    schedules = [make_schedule(settings.optimizer, max(own, 1)) for own in bounds.steps]
    optimizers = {
        name: guarded(settings, schedule) for name, schedule in zip(named, schedules, strict=True)
    }
    plan = PreferencePlan(graphdef, bounds.rows, settings.preference, settings.logit_chunk, named)
    loss, complete = preference_loss(plan), completed(plan, settings.microbatches)
    update = experts_step(loss, optimizers, settings.microbatches)
    score = preference_score(loss, completed(plan))
    schedule = make_schedule(settings.optimizer, steps)
    return Work(preference_step(update, complete), optimizers, schedule, score)


def load(settings: ExpertsPreferenceSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Rows without padding of every expert, of two replies each."""
    data = dataclasses.replace(settings.data, batch_size=rows(settings))
    one = settings_alone(settings, next(iter(learning(settings).values())))
    batch, bounds = preference_load(dataclasses.replace(one, data=data), mesh)
    batch = batch._replace(
        rows=_owned(batch, batch.rows),
        mismatched=None if batch.mismatched is None else _owned(batch, batch.mismatched),
    )
    return Load(batch, ExpertPairBounds(bounds, (UPDATES,) * len(settings.experts)))


def _owned(batch: Any, rows: Any) -> Any:
    """Rows that say whose they are; the numbers of rows have the shape of that."""
    return rows._replace(batch=rows.batch._replace(expert=batch.number, task=None))


def flops(settings: ExpertsPreferenceSettings, config: DecoderConfig, number: int) -> float:
    """As of `recipes.preference`, with the adapters side by side, on rows of every expert."""
    lora, length = joint_lora(adapters(settings)), settings.data.row_length
    passes = (1 if settings.preference.keeps_reference else 0) + (2 if settings.kto else 0)
    scored = scoring_flops(config, lora, RowShape(rows(settings), length, length))
    return rows(settings) * row_flops(config, lora, length) + passes * scored


def check(settings: ExpertsPreferenceSettings, mesh: Mesh) -> None:
    """Raises `InputError` for rows that do not divide, or too few to mismatch."""
    check_batch(rows(settings), settings.microbatches, mesh)
    if settings.kto and settings.data.batch_size < 2:
        raise InputError(
            "config.data.batch_size is 1; kto compares with replies behind other prompts of the "
            "same expert: give 2 or more"
        )


def require_starts(job: Job, values: Mapping[str, float]) -> None:
    """`recipes.preference.require_start` for every expert that learns."""
    for expert in learning(job.settings).values():
        require_start(job, values, f"_{expert.name}")


def summary(settings: ExpertsPreferenceSettings) -> str:
    """For the model card."""
    loss, mixed = settings.preference.loss, " with cross-entropy" if settings.preference.sft else ""
    return f"{len(settings.experts)} experts side by side, preference optimisation ({loss}{mixed}),"


STAGE = Stage(
    settings=ExpertsPreferenceSettings,
    feed=feed,
    work=work,
    load=load,
    flops=flops,
    summary=summary,
    kept=lambda settings, *trees: with_reference(settings.preference.keeps_reference, *trees),
    adapters=adapters,
    check=check,
    check_model=check_shared_prompts,
    first=require_starts,
    before=require_same_reference,
    rows=rows,
    changes=(NARROW,),
    speaks=False,
)

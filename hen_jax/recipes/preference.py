"""Direct preference optimisation: DPO and its relatives, KTO among them (the last stage of HEN).

Left out: updates of the reference while the run goes on, and losses over sorted batches (AOT).
"""

import math
from collections.abc import Mapping

from flax import nnx
from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.rows import check_batch
from hen_jax.data.preference_batches import PreferenceBounds
from hen_jax.models.config import DecoderConfig
from hen_jax.planning.model_flops import RowShape, row_flops, scoring_flops
from hen_jax.planning.search import Change
from hen_jax.recipes.changes import NARROW, replaced
from hen_jax.recipes.preference_report import preference_report, stored_references
from hen_jax.runs.packed import check_shared_prompts
from hen_jax.runs.preferred import PreferenceSettings, preference_feed, preference_load
from hen_jax.runs.reference import require_same_reference
from hen_jax.runs.stage import Job, Stage, Work, guarded
from hen_jax.steps.preference import (
    completed,
    preference_loss,
    preference_score,
    preference_step,
)
from hen_jax.steps.preference_plan import PreferencePlan, with_reference
from hen_jax.steps.update import update_step
from hen_jax.training.optimizers import make_schedule

START_TOLERANCE = 1e-4
"""By how much the first loss may differ from that of a policy that is its reference."""


def work(
    settings: PreferenceSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: PreferenceBounds,
    steps: int,
) -> Work:
    """The objective over the replies to each prompt, one update a batch."""
    schedule = make_schedule(settings.optimizer, steps)
    optimizer = guarded(settings, schedule)
    plan = PreferencePlan(graphdef, bounds, settings.preference, settings.logit_chunk)
    loss, complete = preference_loss(plan), completed(plan, settings.microbatches)
    update = update_step(loss, optimizer, settings.microbatches)
    score = preference_score(loss, completed(plan))
    return Work(preference_step(update, complete), optimizer, schedule, score)


def flops(settings: PreferenceSettings, config: DecoderConfig, number: int) -> float:
    """The model's operations in one update, on rows without padding: those of the policy, of a
    reference that is kept, and of both on KTO's other rows."""
    data, chosen = settings.data, settings.preference
    rows = RowShape(data.batch_size, data.row_length, data.row_length)
    passes = (1 if chosen.keeps_reference else 0) + (2 if settings.kto else 0)
    scored = passes * scoring_flops(config, settings.adapter, rows)
    return data.batch_size * row_flops(config, settings.adapter, data.row_length) + scored


def check(settings: PreferenceSettings, mesh: Mesh) -> None:
    """Raises `InputError` for rows that do not divide, or too few to mismatch."""
    check_batch(settings.data.batch_size, settings.microbatches, mesh)
    if settings.kto and settings.data.batch_size < 2:
        raise InputError(
            "config.data.batch_size is 1; kto compares with replies behind other prompts of the "
            "batch: give 2 or more"
        )


def require_start(job: Job, values: Mapping[str, float], of: str = "") -> None:
    """Refuses a policy that is not its own reference before the first update; `of` ends the names
    of an expert's values.

    Raises:
      InputError: the held-out objective is not what it is where both are the same.
    """
    chosen = job.settings.preference
    start = chosen.objective.start
    if start is None:
        return
    expected = start(chosen.values) * values.get(f"weight{of}", 1.0)
    found = values[f"{chosen.loss}{of}"]
    if not math.isclose(found, expected, rel_tol=1e-6, abs_tol=START_TOLERANCE):
        raise InputError(
            f"before the first update {chosen.loss}{of} is {found:.6f} on the held-out replies; "
            f"where the policy is its reference it is {expected:.6f}. The reference is not "
            "what this run starts from"
        )


def summary(settings: PreferenceSettings) -> str:
    """For the model card."""
    return f"preference optimisation ({settings.preference.loss}, {settings.epochs:g} epochs),"


def _stored(settings: PreferenceSettings) -> PreferenceSettings | None:
    """Without a reference in memory; KTO needs one."""
    if settings.kto or not settings.preference.keeps_reference:
        return None
    return replaced(settings, "preference", reference="precomputed")


STORED = Change("preference.reference=precomputed", _stored)

STAGE = Stage(
    settings=PreferenceSettings,
    feed=preference_feed,
    work=work,
    load=lambda settings, config, mesh: preference_load(settings, mesh),
    flops=flops,
    summary=summary,
    prepare=stored_references,
    kept=lambda settings, *trees: with_reference(settings.preference.keeps_reference, *trees),
    check=check,
    check_model=check_shared_prompts,
    first=require_start,
    before=require_same_reference,
    rows=lambda settings: settings.data.batch_size,
    changes=(STORED, NARROW),
    evaluators={"preferences": preference_report},
)

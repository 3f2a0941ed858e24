"""Supervised fine-tuning, LoRA or full: the SFT stage of HEN."""

import dataclasses

from flax import nnx

from hen_jax.data.pipeline import RowBounds
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.changes import NARROW
from hen_jax.runs.packed import (
    PackedSettings,
    check_packing,
    check_rows,
    packed_feed,
    packed_flops,
    packed_load,
    packed_rows,
)
from hen_jax.runs.stage import Stage, Work, guarded
from hen_jax.steps.sft import sft_loss
from hen_jax.steps.update import update_step
from hen_jax.training.optimizers import make_schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftSettings(PackedSettings):
    """Everything that decides what an SFT run computes."""


def work(
    settings: SftSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: RowBounds,
    steps: int,
) -> Work:
    """Cross-entropy of the assistant's tokens, one update a batch."""
    schedule = make_schedule(settings.optimizer, steps)
    optimizer = guarded(settings, schedule)
    loss = sft_loss(graphdef, bounds.trained, settings.logit_chunk, bounds.reach)
    step = update_step(loss, optimizer, settings.microbatches)
    return Work(step, optimizer, schedule, score=loss)


def summary(settings: SftSettings) -> str:
    """For the model card."""
    epochs = f"{settings.epochs:g} epochs"
    return f"supervised fine-tuning for {epochs}, loss on assistant tokens only,"


STAGE = Stage(
    settings=SftSettings,
    feed=packed_feed,
    work=work,
    load=packed_load,
    flops=packed_flops,
    summary=summary,
    check=check_rows,
    check_model=check_packing,
    rows=packed_rows,
    changes=(NARROW,),
)

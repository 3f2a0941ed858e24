"""The settings of an EMCL run, what they must satisfy, and what a step of theirs costs."""

import dataclasses
from typing import Literal

import numpy as np
from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import BelowOne, Count, check_ranges
from hen_jax.core.rows import check_episode
from hen_jax.curricula.evaluations import EvaluationRows, evaluations
from hen_jax.curricula.shared import EmclConfig
from hen_jax.models.config import DecoderConfig
from hen_jax.planning.model_flops import row_flops
from hen_jax.runs.sources import Source
from hen_jax.runs.stage import RunSettings


@dataclasses.dataclass(frozen=True)
class EpisodeSettings:
    """How an episode is drawn and where its rows live."""

    label: str = "task"  # which label of a record names its task
    support_rows: Count = 4  # of one task in one inner step
    query_rows: Count = 4  # of one task
    row_length: Count = 256  # T; an example has a row of its own
    held_out: Count = 4  # episodes of held-out groups that measure the loss after adaptation
    meta_share: BelowOne = 0.125  # of the training groups, kept for queries; 0: they do both
    task_axis: Literal["data", "fsdp"] | None = None  # tasks spread over this mesh axis

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmclSettings(RunSettings):
    """Everything that decides what an EMCL run computes; `optimizer` makes the outer updates."""

    tasks: tuple[str, ...]  # labels of the records, easiest first
    steps: Count  # episodes
    trusted: tuple[Source, ...] = ()  # where queries come from, if not from the sources
    emcl: EmclConfig = EmclConfig()
    episode: EpisodeSettings = EpisodeSettings()

    def __post_init__(self):
        super().__post_init__()
        if not self.tasks:
            raise InputError("tasks is empty; name at least one label, easiest first")
        if (trained := self.model.trained_dtype) != "float32":
            raise InputError(
                f"config.model.trained_dtype is {trained!r}; meta-gradients need 'float32'"
            )

    def gradients(self) -> np.ndarray:
        """Gradients of a row that each step takes, [steps]."""
        rows = EvaluationRows(self.episode.support_rows, self.episode.query_rows)
        return evaluations(self.emcl, rows, len(self.tasks), self.steps)


def check(settings: EmclSettings, mesh: Mesh) -> None:
    """Raises `InputError` for microbatches, of which an episode has none, and rows left over."""
    if settings.microbatches != 1:
        raise InputError(f"config.microbatches is {settings.microbatches}; episodes need 1")
    drawn = settings.episode
    check_episode(len(settings.tasks), drawn.support_rows, drawn.query_rows, drawn.task_axis, mesh)


def step_flops(settings: EmclSettings, config: DecoderConfig, number: int) -> float:
    """The model's operations in step `number`: gradients of a row, each as in fine-tuning."""
    each = row_flops(config, settings.adapter, settings.episode.row_length)
    return float(settings.gradients()[number] * each)

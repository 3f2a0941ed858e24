"""What stages share whose batches are packed rows of documents.

A stage takes what fits and writes the rest itself.
"""

import dataclasses
from functools import partial
from typing import Any

from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH
from hen_jax.core.ranges import Positive
from hen_jax.core.rows import check_batch
from hen_jax.data.pipeline import (
    PipelineConfig,
    RowBounds,
    batches_per_epoch,
    eval_batches,
    row_bounds,
    train_batches,
    train_records,
    widest,
)
from hen_jax.models.config import DecoderConfig, LongRope
from hen_jax.planning.model_flops import row_flops
from hen_jax.runs.abstract import abstract_batch
from hen_jax.runs.sources import prepared
from hen_jax.runs.stage import Feed, Load, RunSettings
from hen_jax.steps.limits import beyond_limits
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.processes import Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedSettings(RunSettings):
    """A run over packed rows."""

    epochs: Positive  # passes over the data; a part of one is allowed
    data: PipelineConfig = PipelineConfig()


def packed_feed(settings: PackedSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """The sources' documents, rendered, dealt to their parts and packed into rows."""
    data, shards = settings.data, {"process_index": share.index, "process_count": share.count}
    examples = prepared(settings.sources, data, tokenizer)
    bounds = widest(row_bounds(part, data) for part in examples)
    return Feed(
        steps=max(1, round(settings.epochs * batches_per_epoch(examples.train, data))),
        bounds=bounds,
        batches=train_batches(examples.train, data, **shards),
        held_out=partial(eval_batches, examples.valid, data, **shards),
        records=partial(train_records, examples.train, data),
        beyond=partial(beyond_limits, capacity=bounds.trained, reach=bounds.reach),
    )


def packed_load(settings: PackedSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Rows without padding, every position of which is taken to train."""
    data = settings.data
    batch = abstract_batch((data.batch_size,), data.row_length, mesh, (BATCH,))
    return Load(batch, RowBounds(data.row_length))


def packed_flops(settings: PackedSettings, config: DecoderConfig, number: int) -> float:
    """The model's operations in one update; every position of a row is taken to train."""
    data = settings.data
    return data.batch_size * row_flops(config, settings.adapter, data.row_length)


def packed_rows(settings: PackedSettings) -> int:
    """Rows of a batch."""
    return settings.data.batch_size


def check_rows(settings: PackedSettings, mesh: Mesh) -> None:
    """Raises `InputError` for a batch that does not divide over devices and microbatches."""
    check_batch(settings.data.batch_size, settings.microbatches, mesh)


def check_packing(settings: PackedSettings, config: DecoderConfig) -> None:
    """Refuses rows with a common prefix where the model cannot let every document see it.

    Raises:
      InputError: the attention is a fused kernel, a window is shorter than a row, or the rope
        depends on the length of a document.
    """
    if settings.data.packing != "shared_prefix":
        return
    refused = "config.data.packing is 'shared_prefix', which"
    plain = "config.data.packing='fewest_rows'"
    require_shared(settings.execution.attention, settings.data.row_length, config, refused, plain)


def check_shared_prompts(settings: Any, config: DecoderConfig) -> None:
    """Refuses replies that share their prompt where the model cannot let each of them see it.

    `settings.data` is a `ComparisonConfig`.

    Raises:
      InputError: as `check_packing`.
    """
    if settings.data.shared_prompts:
        refused = "config.data.shared_prompts is True, which"
        plain = "config.data.shared_prompts=False"
        row = settings.data.row_length
        require_shared(settings.execution.attention, row, config, refused, plain)


def require_shared(
    attention: str, row: int, config: DecoderConfig, refused: str, plain: str
) -> None:
    """Refuses rows of `row` positions with a common opening that some document would not see.

    `refused` begins the message, `plain` is the remedy.

    Raises:
      InputError: as `check_packing`.
    """
    windows = [window for window in config.windows if window is not None]
    if attention not in ("xla", "chunked"):
        raise InputError(
            f"{refused} config.execution.attention={attention!r} cannot mask; give 'xla' or "
            f"'chunked' there, or {plain}"
        )
    if windows and min(windows) < row:
        raise InputError(
            f"{refused} needs layers that see a whole row; {config.family} has a window of "
            f"{min(windows)} and config.data.row_length is {row}; give {plain}, or rows of "
            f"{min(windows)} at most"
        )
    if isinstance(config.rope_scaling, LongRope):
        raise InputError(
            f"{refused} needs positions that mean the same in every document; the LongRoPE of "
            f"this {config.family} depends on a document's length; give {plain}"
        )

"""Compared replies to a stream of batches that can be stopped and taken up at any batch.

As in `data.pipeline`: prompts are shuffled anew each epoch and repeated without end, every run of
`batch_size` is a global batch of which process `p` of `P` takes the `p`-th slice, and the state is
one number.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.core.types import RowLimits
from hen_jax.data.comparisons import Compared, ComparedBatch, compared_batch
from hen_jax.data.pipeline import Batches, PipelineConfig, local_size

if TYPE_CHECKING:
    import grain


@dataclasses.dataclass(frozen=True)
class ComparisonConfig:
    """How compared replies become batches, one prompt with its replies a row.

    Raises:
      InputError: a number is out of its range.
    """

    row_length: Count = 1024  # the most positions of a prompt and all its replies
    batch_size: Count = 8  # prompts of one batch over all processes
    shared_prompts: bool = True  # a prompt once a row; False: once before each of its replies
    seed: Natural = 0  # of the shuffle
    prefetch: Natural = 2  # batches prepared ahead by a thread; 0 for none

    def __post_init__(self):
        check_ranges(self)


class ComparisonBounds(NamedTuple):
    """What no row of a run exceeds: sizes that its step is compiled for."""

    row: int  # positions
    replies: int  # to one prompt
    reach: RowLimits | None = None  # of the documents; None: a whole row


@dataclasses.dataclass(frozen=True, eq=False)
class Comparisons:
    """Sets of compared replies, and how many rows each gives beside the others."""

    sets: tuple[Sequence[Compared], ...]
    weights: tuple[float, ...] = (1.0,)

    def all(self) -> list[Compared]:
        """Those of all sets."""
        return [one for part in self.sets for one in part]


def train_comparisons(
    found: Comparisons,
    config: ComparisonConfig,
    bounds: ComparisonBounds,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """An endless iterator over this process's part of each `ComparedBatch`; it knows its place.

    Raises:
      InputError: a batch that does not divide over the processes.
    """
    ahead = PipelineConfig(batch_size=config.batch_size, prefetch=config.prefetch)
    local = local_size(ahead, process_index, process_count)
    rows = endless(found, config.seed).batch(local, drop_remainder=True, batch_fn=list)
    laid = partial(compared_batch, row_length=bounds.row, replies=bounds.replies)
    return Batches(rows[process_index::process_count].map(laid), ahead)


def trained_ids(found: Comparisons, config: ComparisonConfig, number: int) -> list[str]:
    """The ids of the prompts in the whole batch `number`, from 0, of `train_comparisons`."""
    rows = endless(found, config.seed)
    places = range(number * config.batch_size, (number + 1) * config.batch_size)
    return [row.id for row in (rows[place] for place in places) if row is not None]


def eval_comparisons(
    found: Sequence[Compared],
    config: ComparisonConfig,
    bounds: ComparisonBounds,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[ComparedBatch]:
    """Every prompt once, in order, then rows of padding up to a whole batch: a process's part."""
    ahead = PipelineConfig(batch_size=config.batch_size)
    local = local_size(ahead, process_index, process_count)
    for start in range(
        process_index * local, round_up(len(found), config.batch_size), config.batch_size
    ):
        rows: list[Compared | None] = [*found[start : start + local]]
        rows += [None] * (local - len(rows))
        yield compared_batch(rows, bounds.row, bounds.replies)


def round_up(count: int, size: int) -> int:
    """The least multiple of `size` that is `count` or more."""
    return -(-count // size) * size


def endless(found: Comparisons, seed: int) -> "grain.MapDataset[Any]":
    """All rows in the order of training: shuffled each epoch, sets mixed by their weights."""
    # Imported here: grain itself imports jax, and this module must load without.
    import grain

    streams = [
        grain.MapDataset.source(rows).seed(seed + number).shuffle().repeat()
        for number, rows in enumerate(found.sets)
    ]
    return streams[0] if len(streams) == 1 else grain.MapDataset.mix(streams, found.weights)

"""Compared replies to a stream of batches, one prompt with its replies a row."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.core.types import RowLimits
from hen_jax.data.comparisons import Compared, ComparedBatch, compared_batch
from hen_jax.data.pipeline import Batches
from hen_jax.data.row_streams import Lay, RowSets, eval_rows, rows_of_batch, train_rows


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
    shards = {"process_index": process_index, "process_count": process_count}
    return train_rows(_rows(found), _lay(bounds), config, **shards)


def trained_ids(found: Comparisons, config: ComparisonConfig, number: int) -> list[str]:
    """The ids of the prompts in the whole batch `number`, from 0, of `train_comparisons`."""
    return [row.id for row in rows_of_batch(_rows(found), config, number)]


def eval_comparisons(
    found: Sequence[Compared],
    config: ComparisonConfig,
    bounds: ComparisonBounds,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[ComparedBatch]:
    """Every prompt once, in order, then rows of padding up to a whole batch: a process's part."""
    shards = {"process_index": process_index, "process_count": process_count}
    return eval_rows(found, _lay(bounds), config, **shards)


def _rows(found: Comparisons) -> RowSets:
    return RowSets(found.sets, found.weights)


def _lay(bounds: ComparisonBounds) -> Lay:
    return partial(compared_batch, row_length=bounds.row, replies=bounds.replies)

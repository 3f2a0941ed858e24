"""Rated conversations to batches: packed rows, and where in them a rating is read off.

A rating is read off the last token of a conversation, or of the conversation up to a reply: by
length, never by the id of a token. Every token of a document is in its row, the last included.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.core.types import Batch, RowLimits
from hen_jax.data.comparisons import unshifted
from hen_jax.data.packing import lay_out_row, pack_all, stack_rows
from hen_jax.data.pipeline import Batches
from hen_jax.data.rated import RatedDocument, RatedLevel
from hen_jax.data.row_streams import Lay, RowSets, eval_rows, rows_of_batch, train_rows
from hen_jax.text.chat import Rendered

_MULTIPLE = 32
"""Rows are as long as the fullest, rounded up to this."""


@dataclasses.dataclass(frozen=True)
class RatedConfig:
    """How rated conversations become batches.

    Raises:
      InputError: a number is out of its range.
    """

    row_length: Count = 1024  # the most positions of a row; longer conversations are left out
    batch_size: Count = 8  # rows of one batch over all processes
    packing: Literal["fewest_rows", "none"] = "fewest_rows"  # "none": one conversation a row
    seed: Natural = 0  # of the shuffle
    prefetch: Natural = 2  # batches prepared ahead by a thread; 0 for none

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Marked:
    """A conversation as tokens, with the places at which a rating is known."""

    id: str
    group: str
    tokens: np.ndarray  # [n] int32
    marks: np.ndarray  # [m] int32: places in `tokens`, at least one
    targets: np.ndarray  # [m, O] float32 in [0, 1]; NaN where an output is not known


class RatedBatch(NamedTuple):
    """Packed rows of rated conversations; places without a rating weigh 0."""

    batch: Batch  # [B, T]
    marks: np.ndarray  # [B, K] int32: positions of the row
    targets: np.ndarray  # [B, K, O] float32
    known: np.ndarray  # [B, K, O] float32, 0 or 1


class RatedBounds(NamedTuple):
    """What no row of a run exceeds: sizes that its step is compiled for."""

    row: int  # positions
    marks: int  # K
    outputs: int  # O
    reach: RowLimits | None = None  # of the documents; None: a whole row


RatedRow = Sequence[Marked]


def mark(
    rated: RatedDocument,
    rendered: Rendered,
    labels: tuple[str, ...],
    level: Literal["conversation", "turn"],
) -> Marked:
    """The places of a rendered conversation at which its ratings are read off.

    At the level of turns each rated reply is a place of its own: the last token of the conversation
    up to there. A conversation without ratings of its replies has one place, its end.

    Raises:
      InputError: turns are asked of a chat format that renders a turn by what follows it.
    """
    document, end = rated.document, len(rendered.tokens) - 1
    found = {end: rated.level}
    if level == "turn" and rated.replies:
        found = _turn_ends(rated, rendered)
    targets = np.asarray([one.outputs(labels) for one in found.values()], np.float32)
    some = ~np.isnan(targets).all(axis=1)
    marks = np.asarray(list(found), np.int32)
    return Marked(document.id, document.group, rendered.tokens, marks[some], targets[some])


def pack_rated(documents: Sequence[Marked], config: RatedConfig) -> list[RatedRow]:
    """The documents dealt to rows; raises `InputError` for one longer than a row."""
    lengths = np.asarray([len(one.tokens) for one in documents])
    return [
        [documents[at] for at in row]
        for row in pack_all(lengths, config.row_length, config.packing)
    ]


def bounds_of_rows(rows: Sequence[RatedRow], outputs: int) -> RatedBounds:
    """The tightest bounds of all rows."""
    fullest = max(sum(len(one.tokens) for one in row) for row in rows)
    longest = max(len(one.tokens) for row in rows for one in row)
    marks = max(sum(len(one.marks) for one in row) for row in rows)
    reach = RowLimits(longest, 0, max(map(len, rows)))
    return RatedBounds(-(-fullest // _MULTIPLE) * _MULTIPLE, marks, outputs, reach)


def rated_batch(rows: Sequence[RatedRow | None], bounds: RatedBounds) -> RatedBatch:
    """One batch; None gives a row of padding, in which nothing is known."""
    shape = len(rows), bounds.marks, bounds.outputs
    marks, targets = np.zeros(shape[:2], np.int32), np.full(shape, np.nan, np.float32)
    laid = []
    for at, row in enumerate(rows):
        documents = row or []
        starts = np.cumsum([0, *(len(one.tokens) for one in documents)])
        placed = [one.marks + start for one, start in zip(documents, starts, strict=False)]
        count = sum(map(len, placed))
        if documents:
            marks[at, :count] = np.concatenate(placed)
            targets[at, :count] = np.concatenate([one.targets for one in documents])
        laid.append(lay_out_row([unshifted(one.tokens) for one in documents], bounds.row))
    known = ~np.isnan(targets)
    return RatedBatch(
        stack_rows(laid), marks, np.where(known, targets, 0.0), known.astype(np.float32)
    )


def train_rated(
    rows: Sequence[RatedRow],
    config: RatedConfig,
    bounds: RatedBounds,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """An endless iterator over this process's part of each `RatedBatch`; it knows its place.

    Raises:
      InputError: a batch that does not divide over the processes.
    """
    shards = {"process_index": process_index, "process_count": process_count}
    return train_rows(RowSets((rows,)), _lay(bounds), config, **shards)


def rated_ids(rows: Sequence[RatedRow], config: RatedConfig, number: int) -> list[str]:
    """The ids of the conversations in the whole batch `number`, from 0, of `train_rated`."""
    return [one.id for row in rows_of_batch(RowSets((rows,)), config, number) for one in row]


def eval_rated(
    rows: Sequence[RatedRow],
    config: RatedConfig,
    bounds: RatedBounds,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[RatedBatch]:
    """Every conversation once, then rows of padding up to a whole batch: a process's part."""
    shards = {"process_index": process_index, "process_count": process_count}
    return eval_rows(rows, _lay(bounds), config, **shards)


def _turn_ends(rated: RatedDocument, rendered: Rendered) -> dict[int, RatedLevel]:
    if rendered.starts is None:
        raise InputError(
            "config.level is 'turn', but the chat format of this model renders a turn by what "
            "stands around it; give 'conversation'"
        )
    count = len(rated.document.conversation.messages)
    following = [*rendered.starts[-count:][1:], len(rendered.tokens)]  # a template may add a turn
    return {int(following[at]) - 1: level for at, level in rated.replies.items()}


def _lay(bounds: RatedBounds) -> Lay:
    return partial(rated_batch, bounds=bounds)

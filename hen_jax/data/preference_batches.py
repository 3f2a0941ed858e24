"""Batches that a policy is trained on by preferences: one prompt with its replies a row.

Under KTO each row has a second one: the same prompt with the replies of the row before it in the
global batch (the first has those of the last), however many processes load it. So the replies
behind other prompts are the batch's own, and none is matched with itself.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Batch, RowLimits
from hen_jax.data.comparison_batches import ComparisonConfig, Comparisons
from hen_jax.data.comparisons import Compared, most_replies, reach_of
from hen_jax.data.examples import Shifted
from hen_jax.data.packing import lay_out_row, stack_rows
from hen_jax.data.pipeline import Batches, local_size
from hen_jax.data.row_streams import RowSets, eval_rows, pipeline_of, train_rows

_MULTIPLE = 32
"""Rows are as long as the longest prompt with its replies, rounded up to this."""


class Weighed(NamedTuple):
    """Rows of replies; reply `k` of a row is its segment `k + 1`."""

    batch: Batch  # [B, T]
    weights: Array  # [B, T] float32: what each target counts for; 0 where its mask is 0


class PreferenceBatch(NamedTuple):
    """Replies, who was preferred to whom, and what a step adds before it divides the rows."""

    rows: Weighed
    wins: Array  # [B, K, K] float32: how much i was preferred to j; a tie is half both ways
    marks: Array  # [B, K, 2] float32: times that a reply was wanted, and unwanted
    number: Array  # [B] int32: of the row, over the training part and then the held-out; -1 padding
    mismatched: Weighed | None = None  # the replies of another row behind this one's prompt
    reference: Array | None = None  # [B, K, K or 1] float32: log-probabilities that were kept
    baseline: Array | None = None  # [B] float32: z0 of KTO, the same in all rows
    scale: Array | None = None  # [B] float32: items of the whole batch per token of its chosen


class WeighedBounds(NamedTuple):
    """What no such row of a run exceeds."""

    row: int  # positions
    replies: int  # to one prompt
    trained: int  # positions that train
    reach: RowLimits | None = None  # of the documents; None: a whole row


class PreferenceBounds(NamedTuple):
    """Sizes that a step is compiled for."""

    rows: WeighedBounds
    mismatched: WeighedBounds | None = None  # KTO's


def preference_bounds(
    found: Sequence[Compared], *, shared: bool, mismatches: bool
) -> PreferenceBounds:
    """The tightest bounds of rows, and of each prompt with the replies of any other."""
    own = WeighedBounds(
        _rounded(max(one.length for one in found)),
        most_replies(found),
        max(map(_trained, found)),
        reach_of(found) if shared else None,
    )
    if not mismatches:
        return PreferenceBounds(own)
    prompt = max(_prompt_length(one) for one in found) - 1
    replies = [[len(reply) for reply in _reply_parts(one)] for one in found]
    length = max(prompt * (1 if shared else len(of)) + sum(of) for of in replies)
    longest = max(max(of) + (prompt if len(of) == 1 else 0) for of in replies)
    reach = RowLimits(longest, prompt, own.replies) if shared else None
    return PreferenceBounds(own, own._replace(row=_rounded(length), reach=reach))


def preference_batch(
    rows: Sequence[Compared | None],
    before: Sequence[Compared | None] | None,
    bounds: PreferenceBounds,
    numbers: dict[Compared, int],
    *,
    shared: bool = True,
) -> PreferenceBatch:
    """One prompt a row; None gives a row of padding. `before` are the rows before these, or None.

    Raises:
      InputError: a prompt with more replies than `bounds` allow.
    """
    K = bounds.rows.replies
    wins, marks = np.zeros((len(rows), K, K), np.float32), np.zeros((len(rows), K, 2), np.float32)
    for at, row in enumerate(rows):
        if row is not None and row.marks is not None:
            if (size := len(row.documents)) > K:
                raise InputError(f"record {row.id}: more than {K} replies to one prompt")
            wins[at, :size, :size], marks[at, :size] = row.wins + row.ties / 2, row.marks
    number = [-1 if row is None else numbers[row] for row in rows]
    others = None
    if before is not None and bounds.mismatched is not None:
        moved = [
            None if row is None or other is None or other is row else mismatched(row, other, shared)
            for row, other in zip(rows, before, strict=True)
        ]
        others = _weighed(moved, bounds.mismatched.row)
    laid = _weighed(rows, bounds.rows.row)
    return PreferenceBatch(laid, wins, marks, np.asarray(number, np.int32), others)


def mismatched(row: Compared, other: Compared, shared: bool = True) -> Compared:
    """The replies of `other` behind the prompt of `row`."""
    start = _prompt_length(row)
    prompt = _whole(row, 0)[:start]
    parts = [np.r_[prompt, part].astype(np.int32) for part in _reply_parts(other)]
    weights = [
        np.r_[np.zeros(start - 1), weight[_prompt_length(other) - 1 :]].astype(np.float32)
        for weight in other.weights
    ]
    prefix = start - 1 if shared and len(parts) > 1 else 0
    inputs, targets = tuple(one[:-1] for one in parts), tuple(one[1:] for one in parts)
    return dataclasses.replace(
        other, documents=inputs, prefix=prefix, targets=targets, weights=tuple(weights)
    )


def train_preferences(
    found: Comparisons,
    config: ComparisonConfig,
    bounds: PreferenceBounds,
    numbers: dict[Compared, int],
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """An endless iterator over this process's part of each `PreferenceBatch`; it knows its place.

    The order of prompts is that of `train_comparisons`.

    Raises:
      InputError: a batch that does not divide over the processes.
    """
    lay = _layer(config, bounds, numbers, process_index, process_count)
    return train_rows(RowSets(found.sets, found.weights), lay, config)


def eval_preferences(
    found: Sequence[Compared],
    config: ComparisonConfig,
    bounds: PreferenceBounds,
    numbers: dict[Compared, int],
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[PreferenceBatch]:
    """Every prompt once, in order, then rows of padding up to a whole batch: a process's part."""
    lay = _layer(config, bounds, numbers, process_index, process_count)
    return eval_rows(found, lay, config)


def _layer(
    config: ComparisonConfig,
    bounds: PreferenceBounds,
    numbers: dict[Compared, int],
    process_index: int,
    process_count: int,
) -> Callable[[Sequence[Compared | None]], PreferenceBatch]:
    """From the rows of a global batch to one process's part of it, laid out."""
    local = local_size(pipeline_of(config), process_index, process_count)
    mine = slice(process_index * local, (process_index + 1) * local)
    lay = partial(preference_batch, bounds=bounds, numbers=numbers, shared=config.shared_prompts)

    def part(rows: Sequence[Compared | None]) -> PreferenceBatch:
        real = [row for row in rows if row is not None]
        before = [*real[-1:], *real[:-1], *[None] * (len(rows) - len(real))]
        return lay(rows[mine], None if bounds.mismatched is None else before[mine])

    return part


def _rounded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def _weighed(rows: Sequence[Compared | None], length: int) -> Weighed:
    """Rows laid out; what a target counts for is laid where its mask is, and then told apart."""
    laid = stack_rows(
        [
            lay_out_row(
                [] if row is None else _shifted(row), length, 0 if row is None else row.prefix
            )
            for row in rows
        ]
    )
    return Weighed(laid._replace(mask=(laid.mask > 0).astype(np.float32)), laid.mask)


def _shifted(row: Compared) -> list[Shifted]:
    return [Shifted(*parts) for parts in zip(row.documents, row.targets, row.weights, strict=True)]


def _trained(row: Compared) -> int:
    return sum(int((weight > 0).sum()) for weight in row.weights)


def _whole(row: Compared, k: int) -> np.ndarray:
    """The `k`-th document with its last token."""
    return np.r_[row.documents[k], row.targets[k][-1:]]


def _prompt_length(row: Compared) -> int:
    """Tokens before the first of any reply that trains."""
    return 1 + min(int(np.flatnonzero(weight)[0]) for weight in row.weights)


def _reply_parts(row: Compared) -> list[np.ndarray]:
    start = _prompt_length(row)
    return [_whole(row, k)[start:] for k in range(len(row.documents))]

"""Several examples in one row, with everything that keeps them apart.

Tokens, targets, mask, positions and segments are laid down together, so no later stage can lose
one of them. `packing="none"` is the same code with one example a row; `packing="shared_prefix"`
lays the prefix that the examples of a row have in common once.
"""

import bisect
import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.types import SHARED, Batch
from hen_jax.data.examples import Example, Shifted, shift

Packing = Literal["fewest_rows", "shared_prefix", "best_fit", "none"]


def pack(
    lengths: Sequence[int], row_length: int, packing: Packing = "fewest_rows", prefix: int = 0
) -> list[list[int]]:
    """Deals items of the given lengths to rows; each row lists the indices of its items.

    `best_fit` takes the longest item first and puts it where the least room is left (best-fit
    decreasing). `fewest_rows` also fills one row after another, each with the longest item left
    and the others that fill it up best, and keeps the better of the two: short items want the
    second, items of a third to a half of a row the first. `none` gives each item its own row.
    `shared_prefix` is `fewest_rows`, for items whose first `prefix` positions are the same and
    stand in a row once.
    `pack([6, 5, 4, 3], 9)` is `[[0, 3], [1, 2]]`, and `pack([6, 5, 4, 3], 9, "shared_prefix", 2)`
    is `[[0, 1], [2, 3]]`.

    Raises:
      InputError: an item is longer than a row.
    """
    if lengths and max(lengths) > row_length:
        raise InputError(
            f"an example of {max(lengths)} positions does not fit in a row of {row_length}; "
            "raise row_length, or encode with this row length as the greatest"
        )
    methods = {
        "fewest_rows": _fewest_rows,
        "shared_prefix": _fewest_rows,
        "best_fit": _best_fit,
        "none": _one_each,
    }
    return methods[packing]([length - prefix for length in lengths], row_length - prefix)


WINDOW = 4096
"""Items of a large set packed together: enough to fill rows to 99 %, in hundredths of a second."""


@dataclasses.dataclass(frozen=True, eq=False)
class RowPlan:
    """Which items each row holds; two arrays, so that millions of rows take little memory."""

    items: np.ndarray  # [n] int32
    ends: np.ndarray  # [rows] int64: row `r` holds items[ends[r - 1] : ends[r]]
    prefix: np.ndarray  # [rows] int32: so many positions its items share; several lay them once

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> list[int]:
        if not 0 <= index < len(self.ends):
            raise IndexError(index)  # by which Python knows the end of a sequence
        start = self.ends[index - 1] if index else 0
        return self.items[start : self.ends[index]].tolist()


def pack_all(
    lengths: np.ndarray, row_length: int, packing: Packing = "fewest_rows", prefix: int = 0
) -> RowPlan:
    """`pack` of any number of items: more than `WINDOW` are shuffled and packed `WINDOW` by one.

    Raises:
      InputError: an item is longer than a row.
    """
    order = np.arange(len(lengths), dtype=np.int32)
    if len(lengths) > WINDOW:
        np.random.default_rng(0).shuffle(order)
    items = np.empty_like(order)
    sizes: list[int] = []
    for start in range(0, len(order), WINDOW):
        window = order[start : start + WINDOW]
        rows = pack(lengths[window].tolist(), row_length, packing, prefix)
        items[start : start + WINDOW] = window[[item for row in rows for item in row]]
        sizes += map(len, rows)
    return RowPlan(items, np.cumsum(sizes, dtype=np.int64), np.full(len(sizes), prefix, np.int32))


def efficiency(
    examples: Sequence[Example], rows: Sequence[Sequence[int]], row_length: int
) -> float:
    """The share of positions that hold a token, in [0, 1]."""
    filled = sum(examples[index].length for row in rows for index in row)
    return filled / (len(rows) * row_length)


def pack_row(examples: Sequence[Example], row_length: int, prefix: int = 0) -> Batch:
    """One row of a `Batch` (fields `[T]`): the examples one after another, then padding.

    Two examples of 3 and 2 positions in a row of 6 have segments `1 1 1 2 2 0` and positions
    `0 1 2 0 1 0`. No example at all gives a row of padding. The first `prefix` positions, which
    must be the same in all and train in none, are laid once where there are several examples: with
    a prefix of 1 the two have segments `-1 1 1 2 0 0` and positions `0 1 2 1 0 0`.
    """
    return lay_out_row([shift(example) for example in examples], row_length, prefix)


def lay_out_row(documents: Sequence[Shifted], row_length: int, prefix: int = 0) -> Batch:
    """`pack_row` of documents that are inputs and targets already."""
    row = Batch(
        tokens=np.zeros(row_length, np.int32),
        targets=np.zeros(row_length, np.int32),
        mask=np.zeros(row_length, np.float32),
        positions=np.zeros(row_length, np.int32),
        segments=np.zeros(row_length, np.int32),
    )
    start = shared = prefix if len(documents) > 1 else 0
    if shared:
        row.tokens[:shared] = documents[0].tokens[:shared]
        # The last of them predicts another token in each document.
        row.targets[: shared - 1] = documents[0].targets[: shared - 1]
        row.positions[:shared] = np.arange(shared)
        row.segments[:shared] = SHARED
    for segment, document in enumerate(documents, start=1):
        tokens, targets, mask = (part[shared:] for part in document)
        place = slice(start, start + len(tokens))
        row.tokens[place] = tokens
        row.targets[place] = targets
        row.mask[place] = mask
        row.positions[place] = np.arange(shared, shared + len(tokens))
        row.segments[place] = segment
        start = place.stop
    return row


def stack_rows(rows: Sequence[Batch]) -> Batch:
    """Rows of `[T]` as one batch of `[B, T]`."""
    return Batch(
        tokens=np.stack([row.tokens for row in rows]),
        targets=np.stack([row.targets for row in rows]),
        mask=np.stack([row.mask for row in rows]),
        positions=np.stack([row.positions for row in rows]),
        segments=np.stack([row.segments for row in rows]),
    )


def _one_each(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    del row_length
    return [[index] for index in range(len(lengths))]


_CANDIDATES = 256
"""Items tried for the rest of a row: so many already reach nearly every sum."""


def _fewest_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    return min(_best_fit(lengths, row_length), _row_by_row(lengths, row_length), key=len)


def _row_by_row(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    left = sorted(range(len(lengths)), key=lambda index: (lengths[index], -index))
    while left:
        longest = left.pop()
        room = row_length - lengths[longest]
        fitting = bisect.bisect_right(left, room, key=lambda index: lengths[index])
        stride = max(1, -(-fitting // _CANDIDATES))
        places = range(fitting - 1, -1, -stride)  # longer first, so that short ones are kept
        chosen = [places[i] for i in _fill([lengths[left[place]] for place in places], room)]
        rows.append([longest, *(left[place] for place in chosen)])
        for place in chosen:
            del left[place]
    return rows


def _fill(sizes: Sequence[int], room: int) -> list[int]:
    """The indices, rising, of those sizes whose sum comes closest to `room` from below.

    Bit `s` of the `i`-th number says whether some of the first `i` sizes sum to `s`.
    """
    reached = [1]
    within = (1 << (room + 1)) - 1
    for size in sizes:
        reached.append((reached[-1] | reached[-1] << size) & within)
        if reached[-1] >> room:
            break
    total = reached[-1].bit_length() - 1
    chosen = []
    for index in range(len(reached) - 2, -1, -1):
        if not reached[index] >> total & 1:
            chosen.append(index)
            total -= sizes[index]
    return chosen[::-1]


def _best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    # Rows are kept by the room they have left. There are at most row_length + 1 different rooms,
    # so finding the tightest is a bisection over these and not over all rows.
    rows: list[list[int]] = []
    rows_with_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # sorted
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        at = bisect.bisect_left(rooms, lengths[index])
        if at == len(rooms):
            row, room = len(rows), row_length
            rows.append([])
        else:
            room = rooms[at]
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                del rooms[at]
        rows[row].append(index)
        left = room - lengths[index]
        if not rows_with_room.setdefault(left, []):
            bisect.insort(rooms, left)
        rows_with_room[left].append(row)
    return rows

"""The records that cross floors, and the legend of dimension letters.

Letters, in annotations and einsum strings alike:
`B` batch rows, `T` query positions, `S` key positions, `D` width, `N` query heads, `K` key/value
heads, `G = N / K`, `H` head width, `P = H / 2` rotated pairs, `F` mlp width, `V` vocabulary, `L`
layers, `R` rank, `E` experts.

This module imports no jax: loader workers build `Batch`es of numpy arrays and start fast.
"""

from typing import Any, NamedTuple

Array = Any
"""A numpy or a jax array; the comment beside a field gives shape and dtype."""

Tree = Any
"""A nested dict of arrays."""

SHARED = -1
"""The segment of positions that belong to every document of their row: their common prefix."""


class Batch(NamedTuple):
    """A batch of token rows; every field of the first five is always present.

    Row `b` holds one or several packed documents. Position `t` of row `b` belongs to document
    `segments[b, t]` (0 is padding), is the `positions[b, t]`-th token of it (from 0), and predicts
    `targets[b, t]`, the token after it in the same document. `mask` is 1 where that prediction
    trains. Targets are shifted once, in `hen_jax.data.examples`, and nowhere else.

    A position with segment `SHARED` belongs to the prefix that every document of the row begins
    with. It stands at the front of the row, sees itself only (causally), and every document of the
    row sees it; nothing in it trains. After a prefix of `p` positions the first own token of each
    document has position `p`.
    """

    tokens: Array  # [B, T] int32
    targets: Array  # [B, T] int32
    mask: Array  # [B, T] float32, 0 or 1
    positions: Array  # [B, T] int32
    segments: Array  # [B, T] int32, 0 = padding, SHARED = the prefix of all documents
    weight: Array | None = None  # [B] float32
    task: Array | None = None  # [B] int32
    expert: Array | None = None  # [B] int32
    example: Array | None = None  # [B] int32: its place among the run's examples


class RowLimits(NamedTuple):
    """How far the documents of any row reach, known to whoever packed the rows."""

    document: int  # the most positions of one document, a shared prefix aside
    prefix: int = 0  # the most positions of a shared prefix
    documents: int | None = None  # the most of them in one row; None: not known


class Mean(NamedTuple):
    """A sum and how many items it sums; divided once, after all accumulation.

    Two `Mean`s add fieldwise: `Mean(6., 2.) + Mean(1., 1.)` would concatenate tuples, so use
    `jax.tree.map(operator.add, a, b)`; the mean of both is then 7 / 3, not the mean of means.
    """

    total: Array  # scalar float32
    count: Array  # scalar float32; a sum of weights need not be whole

    @property
    def value(self) -> Array:
        """`total / count`; the mean of nothing (count 0) is its total, which is 0 or NaN."""
        return self.total / (self.count + (self.count == 0))

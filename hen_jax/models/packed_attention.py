"""Attention without the scores that no document of a row can need.

Whoever packs rows knows how far documents reach. Two layouts follow from it, each one batch of
`attend` for all rows: blocks of the row as it lies (`attend_blocks`), or every document in a block
of its own (`attend_documents`), which costs moving q, k, v and the output and forms fewer scores
where documents are about equally long.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from hen_jax.core.types import SHARED, Array, RowLimits
from hen_jax.models.dot_product import attend, causal_segment_mask, segment_mask

BLOCK_MULTIPLE = 8
"""Prefixes and blocks are multiples of so many positions."""

MOVING = 0.75
"""Documents are laid apart where that leaves less than this share of the scores."""


def within_limits(
    segments: Int[Array, "B T"],
    reach: RowLimits | None,
    window: int | None,
    scale: float,
    softcap: float | None,
) -> Callable[[Array, Array, Array], Array]:
    """The cheaper layout, for q, k and v as `attend` takes them."""
    _, apart = _layout(reach, window, segments.shape[1])
    given = {"segments": segments, "reach": reach, "window": window}
    if reach is None or not apart:
        return partial(attend_blocks, **given, scale=scale, softcap=softcap)
    places = _places(segments, reach)
    return partial(attend_documents, **given, places=places, scale=scale, softcap=softcap)


def scores_within_limits(reach: RowLimits | None, window: int | None, T: int) -> int:
    """How many scores `within_limits` forms for a row of `T`, per query head."""
    return _layout(reach, window, T)[0]


def _layout(reach: RowLimits | None, window: int | None, T: int) -> tuple[int, bool]:
    """The scores, and whether documents are laid apart."""
    prefix, block = _blocks(reach, window, T)
    near = -(-T // block) * block * (prefix + 2 * block)
    if reach is None or reach.documents is None:
        return near, False
    block = _rounded(reach.document)
    apart = reach.documents * block * (prefix + block) + prefix * prefix
    return (apart, True) if apart < MOVING * near else (near, False)


def attend_blocks(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    reach: RowLimits | None,
    window: int | None,
    scale: float,
    softcap: float | None = None,
) -> Float[Array, "B T N H"]:
    """`attend`, with the scores of those keys only that a document can reach.

    A row is cut into blocks as long as a document (or the window). The queries of a block meet the
    prefix of the row, the block before theirs and their own: with documents of 200 positions and
    a prefix of 48, 448 keys however long the row. All blocks of all rows are one batch of
    `attend`.
    """
    B, T, N, H = q.shape
    prefix, block = _blocks(reach, window, T)
    count = -(-T // block)

    def blocks(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0), (0, count * block - T)] + [(0, 0)] * (x.ndim - 2))
        return padded.reshape(B, count, block, *x.shape[2:])

    def reached(x: Array) -> Array:
        own = blocks(x)
        before = jnp.pad(own[:, :-1], [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 1))
        first = jnp.broadcast_to(x[:, None, :prefix], (B, count, prefix, *x.shape[2:]))
        return jnp.concatenate([first, before, own], axis=2)

    def together(x: Array) -> Array:
        return x.reshape(B * count, *x.shape[2:])

    start = jnp.arange(count)[:, None, None] * block
    t = start + jnp.arange(block)[:, None]
    s = start + jnp.arange(-block, block)
    # What the prefix covers is met there, not once more in a block.
    first = jnp.broadcast_to(jnp.arange(prefix), (count, 1, prefix))
    s = jnp.concatenate([first, jnp.where(s < prefix, count * block, s)], axis=2)
    seen = (s <= t) & (t - s < (window or T))
    mask = segment_mask(together(blocks(segments)), together(reached(segments)))
    mask &= jnp.tile(seen, (B, 1, 1))
    keys, values = together(reached(k)), together(reached(v))
    out = attend(together(blocks(q)), keys, values, mask[:, None], scale, softcap)
    return out.reshape(B, count * block, N, H)[:, :T]


class _Places(NamedTuple):
    """Where positions of a row go when its documents are laid apart, and where they come from.

    What has no counterpart on the other side points past its end.
    """

    source: Int[Array, "B S"]  # of each of the `S = documents block` slots, in the row
    slot: Int[Array, "B T"]  # of each position of the row


def _places(segments: Int[Array, "B T"], reach: RowLimits) -> _Places:
    T, block = segments.shape[1], _rounded(reach.document)
    heads, t = _heads(segments), jnp.arange(T)
    starts = jnp.sort(jnp.where(heads, t, T), axis=1)[:, : reach.documents]
    source = (starts[:, :, None] + jnp.arange(block)).reshape(len(segments), -1)
    held = _taken(segments, source).reshape(len(segments), -1, block)
    own = (held > 0) & (held == held[:, :, :1])
    source = jnp.where(own.reshape(source.shape), source, T)

    which = jnp.cumsum(heads, axis=1) - 1
    slot = which * block + t - _taken(starts, jnp.maximum(which, 0))
    return _Places(source, jnp.where(segments > 0, slot, source.shape[1]))


def _heads(segments: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    """True at the first position of each document, prefixes and padding aside."""
    changed = segments[:, 1:] != segments[:, :-1]
    return jnp.pad(changed, ((0, 0), (1, 0)), constant_values=True) & (segments > 0)


def attend_documents(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    reach: RowLimits,
    window: int | None,
    places: _Places,
    scale: float,
    softcap: float | None = None,
) -> Float[Array, "B T N H"]:
    """`attend`, every document in a block of its own.

    A document meets the prefix of its row and itself, the prefix itself alone. Padding gets 0.
    """
    B, T = segments.shape
    prefix, block = min(_rounded(reach.prefix), T), _rounded(reach.document)
    count = places.source.shape[1] // block

    def laid(x: Array) -> Array:
        moved = _moved(x.reshape(B, T, -1), *places)
        return moved.reshape(B * count, block, *x.shape[2:])

    def reached(x: Array) -> Array:
        first = jnp.repeat(x[:, :prefix], count, axis=0)
        return jnp.concatenate([first, laid(x)], axis=1)

    t = places.source.reshape(B, count, block, 1)
    first, own = jnp.arange(prefix), t.swapaxes(2, 3)
    shared = (segments[:, None, None, :prefix] == SHARED) & (t - first < (window or T))
    mine = (own <= t) & (own < T) & (t - own < (window or T))
    mask = jnp.concatenate([shared, mine], axis=3).reshape(B * count, 1, block, prefix + block)
    out = attend(laid(q), reached(k), reached(v), mask, scale, softcap)
    out = _moved(out.reshape(B, count * block, -1), places.slot, places.source).reshape(q.shape)
    if not prefix:
        return out
    of_prefix = partial(attend, mask=causal_segment_mask(segments[:, :prefix], window))
    first = of_prefix(*(x[:, :prefix] for x in (q, k, v)), scale=scale, softcap=softcap)
    is_shared = (segments[:, :prefix] == SHARED)[:, :, None, None]
    first = jnp.where(is_shared, first, out[:, :prefix])
    return jnp.concatenate([first, out[:, prefix:]], axis=1)


@jax.custom_vjp
def _moved(
    x: Float[Array, "B S D"], source: Int[Array, "B U"], slot: Int[Array, "B S"]
) -> Float[Array, "B U D"]:
    """`x` at `source`, 0 where that lies beyond; `slot` is the inverse.

    With it the backward pass gathers too, where the automatic one would scatter.
    """
    return _taken(x, source)


def _taken(x: Array, places: Int[Array, "B U"]) -> Array:
    places = places.reshape(*places.shape, *[1] * (x.ndim - 2))
    return jnp.take_along_axis(x, places, axis=1, mode="fill", fill_value=0)


_moved.defvjp(
    lambda x, source, slot: (_taken(x, source), (source, slot)),
    lambda places, g: (_taken(g, places[1]), None, None),
)


def beyond(segments: Int[Array, "B T"], reach: RowLimits) -> Bool[Array, "B 1 1"]:
    """True for a row that exceeds `reach`."""
    last = segments[:, reach.document :]
    longer = ((last > 0) & (last == segments[:, : last.shape[1]])).any(axis=1)
    longer |= (segments[:, reach.prefix :] == SHARED).any(axis=1)
    if reach.documents is not None:
        longer |= _heads(segments).sum(axis=1) > reach.documents
    return longer[:, None, None]


def astray(
    positions: Int[Array, "B T"], segments: Int[Array, "B T"], window: int
) -> Bool[Array, "B 1 1"]:
    """True for a row whose documents lie too far from its shared prefix for a window.

    A window is counted in positions of the row. A document behind others is further from the
    prefix than it would be in a row of its own, so that it would see less of it: where that would
    be seen at all, the row is one that this attention gets wrong.
    """
    prefix = (segments == SHARED).sum(axis=1, keepdims=True)
    t = jnp.arange(segments.shape[1])
    loses = (segments > 0) & (t > positions) & (t >= window)
    loses &= (prefix > 0) & (positions - window + 1 < prefix)
    return loses.any(axis=1)[:, None, None]


def _blocks(reach: RowLimits | None, window: int | None, T: int) -> tuple[int, int]:
    """Positions of the prefix, and of a block: as far as a query looks back."""
    near = min(reach.document if reach else T, window or T, T)
    return min(_rounded(reach.prefix), T) if reach else 0, _rounded(near)


def _rounded(positions: int) -> int:
    return -(-positions // BLOCK_MULTIPLE) * BLOCK_MULTIPLE

"""Keys and values of decoding: a slot of the cache per row, and what was written lately beside it.

A row's token of position `s` lies at place `s`, so that a row needs nothing but its length. While a
program decodes, the cache is only read: new keys and values go to a small `Recent` of shared
places, one contiguous update for all rows, and are put into the cache in one go at the end.
"""

import operator
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from hen_jax.core.types import Array
from hen_jax.models.config import DecoderConfig
from hen_jax.models.dot_product import MASKED, capped

NOWHERE = 2**30
"""The position of a place that no query sees."""


class LayerCache(NamedTuple):
    """Keys and values of one layer, or of all layers stacked on a leading `L`.

    Keys lie `[H, S]`, so that scores are a product of row-major matrices: on a CPU about a third
    faster than from `[S, H]`, six times faster than from `[S, K, H]`.
    """

    keys: Float[Array, "*L B K H S"]
    values: Float[Array, "*L B K S H"]


Layers = LayerCache | tuple[LayerCache, ...]
"""One stacked `LayerCache` where layers are scanned, and `L` of them where they are unrolled."""


class Cache(NamedTuple):
    """`S` places for each layer and row, of which row `b` has filled the first `lengths[b]`."""

    layers: Layers
    lengths: Int[Array, "B"]


class Recent(NamedTuple):
    """`W` places that all rows fill in the same order; unfilled ones have position `NOWHERE`."""

    layers: Layers
    positions: Int[Array, "B W"]


class Seen(NamedTuple):
    """Which places a query may look at."""

    kept: Bool[Array, "B T S"] | None  # of the cache; None: it holds nothing
    recent: Bool[Array, "B T W"]


def empty_layers(
    config: DecoderConfig, rows: int, places: int, dtype: jnp.dtype, unrolled: bool
) -> Layers:
    """Zeros for `2 L B S K H` numbers."""
    L, K, H = config.layers, config.kv_heads, config.head_dim

    def empty(*leading: int) -> LayerCache:
        keys = jnp.zeros((*leading, rows, K, H, places), dtype)
        return LayerCache(keys, jnp.zeros((*leading, rows, K, places, H), dtype))

    return tuple(empty() for _ in range(L)) if unrolled else empty(L)


def empty_recent(kept: Layers, rows: int, places: int) -> Recent:
    """`places` unfilled places for `rows` rows, of the kind that `kept` is."""

    def empty(layer: LayerCache) -> LayerCache:
        keys, values = layer
        *L, _, K, H, _ = keys.shape
        return LayerCache(
            jnp.zeros((*L, rows, K, H, places), keys.dtype),
            jnp.zeros((*L, rows, K, places, H), values.dtype),
        )

    layers = jax.tree.map(empty, kept, is_leaf=lambda x: isinstance(x, LayerCache))
    return Recent(layers, jnp.full((rows, places), NOWHERE, jnp.int32))


def append(
    layer: LayerCache, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], place: Int[Array, ""]
) -> LayerCache:
    """The keys and values of `T` tokens put at `place` and after it, in every row."""

    def put(leaf: Array, new: Array, axis: int) -> Array:
        def write(leaf: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(leaf, new, place, axis)

        return _written(write, leaf, new.astype(leaf.dtype))

    return LayerCache(
        put(layer.keys, k.transpose(0, 2, 3, 1), 3), put(layer.values, v.transpose(0, 2, 1, 3), 2)
    )


def seen_places(
    positions: Int[Array, "B T"],
    recent: Int[Array, "B W"],
    cache: Cache | None,
    window: int | None,
) -> Seen:
    """What queries at `positions` see: what stands before them in the cache and at the positions of
    `recent`, themselves included, as far as the window reaches."""
    mine = positions[:, :, None]

    def near(theirs: Int[Array, "#B #T S"]) -> Bool[Array, "B T S"]:
        before = theirs <= mine
        return before if window is None else before & (mine - theirs < window)

    if cache is None:
        return Seen(None, near(recent[:, None]))
    place = jnp.arange(places_of(cache.layers))[None, None]
    return Seen(near(place) & (place < cache.lengths[:, None, None]), near(recent[:, None]))


def places_of(layers: Layers) -> int:
    """`S`."""
    return (layers if isinstance(layers, LayerCache) else layers[0]).keys.shape[-1]


def first_places(cache: Cache, count: int) -> Cache:
    """The first `count` places of every row, for a program that reads no others."""
    if count >= places_of(cache.layers):
        return cache

    def cut(layer: LayerCache) -> LayerCache:
        return LayerCache(layer.keys[..., :count], layer.values[..., :count, :])

    layers = jax.tree.map(cut, cache.layers, is_leaf=lambda x: isinstance(x, LayerCache))
    return cache._replace(layers=layers)


def attend_cached(
    q: Float[Array, "B T N H"],
    kept: LayerCache | None,
    recent: LayerCache,
    seen: Seen,
    scale: float,
    softcap: float | None = None,
) -> Float[Array, "B T N H"]:
    """`attention.attend` over the places seen in the cache and lately; softmax in float32."""
    B, T, N, H = q.shape
    K = recent.keys.shape[-3]
    grouped = q.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)

    def scores(keys: Array, mask: Array) -> Float[Array, "B K Q S"]:
        raw = jnp.matmul(grouped, keys.astype(q.dtype), preferred_element_type=jnp.float32)
        bias = jnp.where(mask, 0.0, MASKED)
        return capped(raw * scale, softcap) + jnp.tile(bias[:, None], (1, 1, N // K, 1))

    parts = [(scores(recent.keys, seen.recent), recent.values)]
    if kept is not None and seen.kept is not None:
        parts.append((scores(kept.keys, seen.kept), kept.values))
    highest = reduce(jnp.maximum, [one.max(axis=-1, keepdims=True) for one, _ in parts])
    weights = [jnp.exp(one - highest) for one, _ in parts]
    total = reduce(operator.add, [one.sum(axis=-1, keepdims=True) for one in weights])
    out = reduce(
        operator.add,
        [
            jnp.matmul(one.astype(q.dtype), v.astype(q.dtype), preferred_element_type=jnp.float32)
            for one, (_, v) in zip(weights, parts, strict=True)
        ],
    )
    out = (out / total).astype(q.dtype).reshape(B, K, N // K, T, H)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def write_cache_rows(
    layers: Layers, new: Layers, rows: Int[Array, "P"], starts: Int[Array, "P"]
) -> Layers:
    """Row `p` of `new` put into row `rows[p]` from place `starts[p]` on.

    What would not lie within the cache as a whole is not written: a row of -1, say.
    """

    def put(leaf: Array, update: Array, axis: int) -> Array:
        row = leaf.ndim - 4
        numbers = jax.lax.ScatterDimensionNumbers(
            update_window_dims=tuple(d for d in range(leaf.ndim) if d != row),
            inserted_window_dims=(row,),
            scatter_dims_to_operand_dims=(row, axis),
        )
        return _scattered(leaf, jnp.stack([rows, starts], axis=1), update, numbers)

    return _of_layers(put, layers, new)


def write_behind(layers: Layers, new: Layers, lengths: Int[Array, "B"]) -> Layers:
    """Each row of `new` put into the same row from place `lengths[b]` on."""

    def put(leaf: Array, update: Array, axis: int) -> Array:
        row = leaf.ndim - 4
        # Rows as a batching dimension, so that each device writes its own. Not by `vmap`, which
        # brings them to the front: on a TPU that costs a copy of the cache.
        numbers = jax.lax.ScatterDimensionNumbers(
            update_window_dims=tuple(d for d in range(leaf.ndim) if d != row),
            inserted_window_dims=(),
            scatter_dims_to_operand_dims=(axis,),
            operand_batching_dims=(row,),
            scatter_indices_batching_dims=(0,),
        )
        return _scattered(leaf, lengths[:, None], update, numbers)

    return _of_layers(put, layers, new)


def _scattered(
    leaf: Array, indices: Array, update: Array, numbers: jax.lax.ScatterDimensionNumbers
) -> Array:
    """Windows put into the cache, those that would not lie in it as a whole left out."""
    mode = jax.lax.GatherScatterMode.FILL_OR_DROP

    def write(leaf: Array, update: Array) -> Array:
        return jax.lax.scatter(leaf, indices, update, numbers, unique_indices=True, mode=mode)

    return _written(write, leaf, update.astype(leaf.dtype))


def _written(write: Callable[[Array, Array], Array], leaf: Array, new: Array) -> Array:
    """`write(leaf, new)`.

    XLA CPU: in bfloat16 it would convert all of `leaf` to float32 and back. XLA TPU: as whole
    numbers the cache would be copied.
    """
    if leaf.dtype != jnp.bfloat16:
        return write(leaf, new)

    def of_bits(leaf: Array, new: Array) -> Array:
        bits = [jax.lax.bitcast_convert_type(x, jnp.uint16) for x in (leaf, new)]
        return jax.lax.bitcast_convert_type(write(*bits), leaf.dtype)

    return jax.lax.platform_dependent(leaf, new, cpu=of_bits, default=write)


def _of_layers(put: Callable[..., Array], *layers: Layers) -> Layers:
    """`put(*leaves, axis)` of keys and of values, with the axis of their places."""

    def one(*layers: LayerCache) -> LayerCache:
        end = layers[0].keys.ndim
        return LayerCache(
            put(*[layer.keys for layer in layers], end - 1),
            put(*[layer.values for layer in layers], end - 2),
        )

    return jax.tree.map(one, *layers, is_leaf=lambda x: isinstance(x, LayerCache))


def compacted(recent: Recent) -> Layers:
    """What is recent with the filled places of each row first, in their order."""
    order = jnp.argsort(recent.positions == NOWHERE, axis=1, stable=True)

    def sorted_(leaf: Array, axis: int) -> Array:
        shape = [1] * leaf.ndim
        shape[-4], shape[axis] = order.shape
        return jnp.take_along_axis(leaf, order.reshape(shape), axis=axis)

    return _of_layers(sorted_, recent.layers)


def take_rows(layers: Layers, rows: Int[Array, "P"]) -> Layers:
    """The given rows of the cache, in that order."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=leaf.ndim - 4), layers)


def with_places(layers: Layers, places: int) -> Layers:
    """The cache with room for `places` positions: the first of them as they were."""

    def sized(leaf: Array, axis: int) -> Array:
        more = max(0, places - leaf.shape[axis])
        padding = [(0, more if d == axis else 0) for d in range(leaf.ndim)]
        return jax.lax.slice_in_dim(jnp.pad(leaf, padding), 0, places, axis=axis)

    return _of_layers(sized, layers)

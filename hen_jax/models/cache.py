"""The key/value cache of decoding: static shape, written in place, one slot per position."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from hen_jax.core.types import Array
from hen_jax.models.dot_product import capped


class LayerCache(NamedTuple):
    """Keys and values of one layer, or of all layers stacked on a leading `L`.

    Keys lie `[H, S]`, so that scores are a product of row-major matrices: on a CPU about a third
    faster than from `[S, H]`, six times faster than from `[S, K, H]`. `*R` is `L B K` or, in a
    layer of its own, one dimension of `B * K` (see `unstack_cache`).
    """

    keys: Float[Array, "*R H S"]
    values: Float[Array, "*R S H"]


class Cache(NamedTuple):
    """Keys and values of `S` slots for each layer and row; `valid` marks those a row may see.

    All rows write the same slot at the same time (prompts are left-padded), so one write is one
    contiguous update; where a token stands in its row is its position, not its slot.

    `layers` is one stacked `LayerCache` where layers are scanned, and a tuple of `L` of them where
    they are unrolled: then each is an array of its own, which no layer's update copies.
    """

    layers: LayerCache | tuple[LayerCache, ...]
    valid: Bool[Array, "B S"]
    slot: Int[Array, ""]  # the next slot to write


def init_cache(
    keys: Float[Array, "L B T K H"],
    values: Float[Array, "L B T K H"],
    valid: Bool[Array, "B T"],
    slots: int,
) -> Cache:
    """A stacked cache of `slots` slots whose first `T` hold a prompt: `2 L B S K H` numbers."""
    T = valid.shape[1]
    room = [(0, 0)] * 3
    layers = LayerCache(
        jnp.pad(keys.transpose(0, 1, 3, 4, 2), [*room, (0, 0), (0, slots - T)]),
        jnp.pad(values.transpose(0, 1, 3, 2, 4), [*room, (0, slots - T), (0, 0)]),
    )
    return Cache(layers, jnp.pad(valid, [(0, 0), (0, slots - T)]), jnp.asarray(T, jnp.int32))


def unstack_cache(cache: Cache) -> Cache:
    """A stacked cache as one array per layer, in the shape that the products of attention have.

    With rows and heads as two dimensions XLA reshapes them around the product, loses sight of the
    update being in place, and copies every layer at every token.
    """
    stacked = cache.layers
    assert isinstance(stacked, LayerCache)
    flat = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], -1, *leaf.shape[3:]), stacked)
    return cache._replace(layers=tuple(map(LayerCache, *flat)))


def repeat_rows(cache: Cache, times: int) -> Cache:
    """A stacked cache with each row `times` times in a row."""
    assert isinstance(cache.layers, LayerCache)
    layers = jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=1), cache.layers)
    return Cache(layers, jnp.repeat(cache.valid, times, axis=0), cache.slot)


def with_next_slot_valid(cache: Cache) -> Cache:
    """The cache with its next slot visible to all rows: what the queries of this step look at."""
    rows = jnp.ones((cache.valid.shape[0], 1), bool)
    valid = jax.lax.dynamic_update_slice(cache.valid, rows, (0, cache.slot))
    return cache._replace(valid=valid)


def append(
    layer: LayerCache,
    k: Float[Array, "B 1 K H"],
    v: Float[Array, "B 1 K H"],
    slot: Int[Array, ""],
    index: tuple[Int[Array, ""], ...] = (),
) -> LayerCache:
    """One token's key and value put at `slot`; `index` is the layer's, for a stacked cache."""

    def put(leaf: Array, new: Array, axis: int) -> Array:
        shape, at = list(leaf.shape), [*index] + [0] * (leaf.ndim - len(index))
        shape[: len(index)] = [1] * len(index)
        shape[axis], at[axis] = 1, slot
        return jax.lax.dynamic_update_slice(leaf, new.reshape(shape).astype(leaf.dtype), at)

    return LayerCache(put(layer.keys, k, -1), put(layer.values, v, -2))


def within_window(cache: Cache, window: int | None) -> Bool[Array, "B S"]:
    """The valid slots that the query at `cache.slot` sees: itself and `window - 1` before it.

    Rows are contiguous from their first token on, so slots are as far apart as positions.
    """
    if window is None:
        return cache.valid
    return cache.valid & (jnp.arange(cache.valid.shape[1]) > cache.slot - window)


def attend_cached(
    q: Float[Array, "B 1 N H"],
    layer: LayerCache,
    seen: Bool[Array, "B S"],
    scale: float,
    softcap: float | None = None,
) -> Float[Array, "B 1 N H"]:
    """`attention.attend` of one query per row over the slots it sees; softmax in float32."""
    *R, H, S = layer.keys.shape
    kv_heads = math.prod(R) // q.shape[0]
    seen = jnp.repeat(seen[:, None], kv_heads, axis=1).reshape(*R, 1, S)
    grouped = q.reshape(*R, -1, H)  # N = K G, and a row's heads lie together
    scores = jnp.matmul(grouped, layer.keys, preferred_element_type=jnp.float32) * scale
    scores = jnp.where(seen, capped(scores, softcap), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.matmul(weights.astype(q.dtype), layer.values).reshape(q.shape)

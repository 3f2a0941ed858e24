"""A decoder's forward pass over new tokens of rows whose earlier ones lie in a cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.mesh import shard_rows
from hen_jax.core.types import Array
from hen_jax.models.cache import (
    Cache,
    LayerCache,
    Recent,
    Seen,
    append,
    attend_cached,
    seen_places,
)
from hen_jax.models.decoder import Decoder
from hen_jax.models.kinds import layer_kinds, select_kind
from hen_jax.models.layers import Block


class New(NamedTuple):
    """`T` tokens more of each row."""

    tokens: Int[Array, "B T"]
    positions: Int[Array, "B T"]  # where they stand in their rows; `NOWHERE`: nobody sees them
    reach: Int[Array, "B"]  # the length that each row may come to, which longrope must know


def extend(
    model: Decoder,
    blocks: tuple[Block, ...] | None,
    new: New,
    cache: Cache | None,
    recent: Recent,
    place: Int[Array, ""],
) -> tuple[Float[Array, "B T D"], Recent]:
    """Hidden states of the new tokens after the last norm, and `recent` with them from `place` on.

    With `blocks` (see `unstack_layers`) layers are unrolled, and both caches hold a tuple of them.
    Without a cache the rows have nothing but what is recent.
    """
    positions = jax.lax.dynamic_update_slice_in_dim(recent.positions, new.positions, place, axis=1)
    T = new.tokens.shape[1]
    lengths = None if cache is None else cache.lengths
    places = 0 if cache is None else _places(cache)
    windows = layer_kinds(model.config).windows
    seen = [seen_places(new.positions, lengths, places, positions, window) for window in windows]
    reach = jnp.broadcast_to(new.reach[:, None], (new.reach.shape[0], T))
    angles = model.angles(new.positions, reach)
    run = _scanned if blocks is None else _unrolled
    x, layers = run(
        model, blocks, model.embedded(new.tokens), angles, seen, cache, recent.layers, place
    )
    return model.norm(x), Recent(layers, positions)


def _places(cache: Cache) -> int:
    layers = cache.layers
    return (layers if isinstance(layers, LayerCache) else layers[0]).keys.shape[-1]


def _scanned(model, blocks, x, angles, seen, cache, recent, place):
    del blocks

    def step(x: Array, layer: tuple) -> tuple[Array, LayerCache]:
        kind, block, kept, lately = layer
        mine = Seen(
            None if cache is None else select_kind(kind, [one.kept for one in seen]),
            select_kind(kind, [one.recent for one in seen]),
        )
        mine_angles = select_kind(kind, angles)
        x, lately = _one(model, model.whole(block), x, mine_angles, mine, kept, lately, place)
        return shard_rows(x, model.layout), lately

    kept = None if cache is None else cache.layers
    return jax.lax.scan(step, x, (layer_kinds(model.config).of_layer, model.blocks, kept, recent))


def _unrolled(model, blocks, x, angles, seen, cache, recent, place):
    kinds = layer_kinds(model.config).of_layer
    layers = []
    for index, (block, lately) in enumerate(zip(blocks, recent, strict=True)):
        kind = 0 if kinds is None else kinds[index]
        kept = None if cache is None else cache.layers[index]
        x, lately = _one(model, block, x, angles[kind], seen[kind], kept, lately, place)
        layers.append(lately)
    return x, tuple(layers)


def _one(
    model: Decoder,
    block: Block,
    x: Float[Array, "B T D"],
    angles: Float[Array, "B T P"],
    seen: Seen,
    kept: LayerCache | None,
    recent: LayerCache,
    place: Int[Array, ""],
) -> tuple[Float[Array, "B T D"], LayerCache]:
    config = model.config

    def look(q: Array, k: Array, v: Array) -> tuple[Array, LayerCache]:
        now = append(recent, k, v, place)
        out = attend_cached(q, kept, now, seen, config.attention_scale, config.attention_softcap)
        return out, now

    return block(x, angles, look)

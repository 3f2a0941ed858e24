"""A decoder's forward pass over new tokens of rows whose earlier ones lie in a cache."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.mesh import shard_rows
from hen_jax.core.types import Array
from hen_jax.models.cache import (
    Cache,
    LayerCache,
    Layers,
    Recent,
    Seen,
    append,
    attend_cached,
    seen_places,
)
from hen_jax.models.decoder import Decoder
from hen_jax.models.kinds import layer_kinds, select_kind
from hen_jax.models.layers import Block, Gate


class New(NamedTuple):
    """`T` tokens more of each row."""

    tokens: Int[Array, "B T"]
    positions: Int[Array, "B T"]  # where they stand in their rows; `NOWHERE`: nobody sees them
    reach: Int[Array, "B"]  # the length that each row may come to, which longrope must know
    gate: Gate | None = None  # which experts' adapters each row uses


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
    reach = jnp.broadcast_to(new.reach[:, None], new.tokens.shape)
    angles = model.angles(new.positions, reach)
    seen = [
        seen_places(new.positions, positions, cache, window)
        for window in layer_kinds(model.config).windows
    ]
    layer = partial(_layer, model, angles, seen, place, new.gate)
    kept = None if cache is None else cache.layers
    run = partial(_scanned, model) if blocks is None else partial(_unrolled, model, blocks)
    x, layers = run(layer, model.embedded(new.tokens), kept, recent.layers)
    return model.norm(x), Recent(layers, positions)


_Layer = Callable[..., tuple[Array, LayerCache]]
"""`(x, kind, block, kept, recent)`: `x` after a layer of that kind, and `recent` with its keys."""


def _layer(
    model: Decoder,
    angles: Sequence[Float[Array, "B T P"]],
    seen: Sequence[Seen],
    place: Int[Array, ""],
    gate: Gate | None,
    x: Float[Array, "B T D"],
    kind: Array | int | None,
    block: Block,
    kept: LayerCache | None,
    recent: LayerCache,
) -> tuple[Float[Array, "B T D"], LayerCache]:
    config, mine = model.config, select_seen(kind, seen)

    def look(q: Array, k: Array, v: Array) -> tuple[Array, LayerCache]:
        now = append(recent, k, v, place)
        out = attend_cached(q, kept, now, mine, config.attention_scale, config.attention_softcap)
        return out, now

    return block(x, select_kind(kind, angles), look, gate)


def select_seen(kind: Array | int | None, seen: Sequence[Seen]) -> Seen:
    """What a layer of that kind sees."""
    kept = [one.kept for one in seen]
    recent = select_kind(kind, [one.recent for one in seen])
    return Seen(None if kept[0] is None else select_kind(kind, kept), recent)


def _scanned(
    model: Decoder, layer: _Layer, x: Array, kept: Layers | None, recent: Layers
) -> tuple[Array, Layers]:
    def step(x: Array, given: tuple) -> tuple[Array, LayerCache]:
        kind, block, kept, recent = given
        x, recent = layer(x, kind, model.whole(block), kept, recent)
        return shard_rows(x, model.layout), recent

    return jax.lax.scan(step, x, (layer_kinds(model.config).of_layer, model.blocks, kept, recent))


def _unrolled(
    model: Decoder,
    blocks: tuple[Block, ...],
    layer: _Layer,
    x: Array,
    kept: Layers | None,
    recent: Layers,
) -> tuple[Array, Layers]:
    assert not isinstance(recent, LayerCache), "give the blocks, and the cache layer by layer"
    kinds, layers = layer_kinds(model.config).of_layer, []
    for index, (block, lately) in enumerate(zip(blocks, recent, strict=True)):
        kind = None if kinds is None else int(kinds[index])
        x, lately = layer(x, kind, block, None if kept is None else kept[index], lately)
        layers.append(lately)
    return x, tuple(layers)

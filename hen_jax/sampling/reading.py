"""Prompts into slots: pieces of them are read into the cache, or copied from another slot."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.types import Array
from hen_jax.models.cache import (
    Cache,
    LayerCache,
    Layers,
    empty_recent,
    take_rows,
    write_cache_rows,
)
from hen_jax.models.decoder import unstack_layers
from hen_jax.models.extend import New, extend
from hen_jax.sampling.slots import DecodeState, gate_of
from hen_jax.sampling.weights import Weights


class PromptPiece(NamedTuple):
    """Up to `C` tokens of each of `P` prompts, padded at the right."""

    tokens: Int[Array, "P C"]
    slot: Int[Array, "P"]  # `B` or more: nobody's
    start: Int[Array, "P"]  # tokens of the prompt before these
    reach: Int[Array, "P"]  # as in `Rows`
    gate: Float[Array, "P R"]  # as in `Rows`


def prefill(weights: Weights, state: DecodeState, piece: PromptPiece, resumed: bool) -> DecodeState:
    """Reads a piece of each prompt into the cache. `resumed` (static): something stands before it.

    Rows are not made active, nor their lengths changed: see `admit`.
    """
    P, C = piece.tokens.shape
    model, kept = weights.model, state.cache.layers
    mine = _stacked(take_rows(kept, jnp.minimum(piece.slot, state.rows.left.shape[0] - 1)))
    positions = piece.start[:, None] + jnp.arange(C)
    new = New(piece.tokens, positions, piece.reach, gate_of(piece.gate))
    cache = Cache(mine, piece.start) if resumed else None
    _, recent = extend(model, None, new, cache, empty_recent(mine, P, C), jnp.int32(0))
    written = recent.layers
    if not isinstance(kept, LayerCache):
        written = unstack_layers(written, len(kept))
    layers = write_cache_rows(kept, written, piece.slot, piece.start)
    return state._replace(cache=state.cache._replace(layers=layers))


def _stacked(layers: Layers) -> LayerCache:
    if isinstance(layers, LayerCache):
        return layers
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def copy_rows(state: DecodeState, source: Int[Array, "P"], target: Int[Array, "P"]) -> DecodeState:
    """What the cache holds for `source` rows, for `target` rows too."""
    layers = state.cache.layers
    copied = write_cache_rows(layers, take_rows(layers, source), target, jnp.zeros_like(target))
    return state._replace(cache=state.cache._replace(layers=copied))

"""Which expert answers: a linear head on what the frozen base makes of the user's words.

The states after the first `layers` blocks, through the model's last norm, averaged over a
conversation's own positions: one vector `[D]` for each conversation, and a softmax over the experts
of it. Nothing of the base trains, so the vectors are computed once.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hen_jax.adapters.experts import NOBODY
from hen_jax.core.types import Array, Tree
from hen_jax.models.config import DecoderConfig, Execution
from hen_jax.models.decoder import abstract, merge, split

ROWS = 16
"""Conversations that go through the trunk at a time."""

_MULTIPLE = 32


def usual_layer(config: DecoderConfig) -> int:
    """The layer that is read where none is named: two thirds of the way up; ours."""
    return -(-2 * config.layers // 3)


def first_layers(config: DecoderConfig, base: Tree, layers: int) -> tuple[DecoderConfig, Tree]:
    """A decoder that ends after `layers` blocks; its leaves are those of `base`."""
    kept = tuple(layer for layer in config.global_layers if layer < layers)
    lower = dataclasses.replace(config, layers=layers, global_layers=kept)
    return lower, base | {"blocks": jax.tree.map(lambda leaf: leaf[:layers], base["blocks"])}


def pooled(hidden: Float[Array, "B T D"], own: Float[Array, "B T"]) -> Float[Array, "B D"]:
    """The mean of the states where `own` is 1, in float32; of a row without any, zeros."""
    hidden, own = hidden.astype(jnp.float32), own.astype(jnp.float32)
    total = jnp.einsum("BTD,BT->BD", hidden, own)
    return total / jnp.maximum(own.sum(axis=1, keepdims=True), 1.0)


def state_reader(
    config: DecoderConfig, base: Tree, layers: int, execution: Execution
) -> Callable[[Sequence[np.ndarray], int], np.ndarray]:
    """`read(documents, skip) -> [N, D]`: the pooled states of documents of tokens, float32.

    The first `skip` positions of each, which are the same in all, are read and not averaged. Rows
    are padded to a multiple of 32 positions and `ROWS` rows, so that few programs are compiled.
    """
    lower, leaves = first_layers(config, base, layers)
    graphdef = split(abstract(lower, None, execution)).graphdef

    @jax.jit
    def states(leaves: Tree, tokens: Array, segments: Array, own: Array) -> Array:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        return pooled(merge(graphdef, leaves).hidden(tokens, positions, segments), own)

    def read(documents: Sequence[np.ndarray], skip: int) -> np.ndarray:
        found = np.zeros((len(documents), config.width), np.float32)
        order = np.argsort([len(tokens) for tokens in documents], kind="stable")
        for start in range(0, len(order), ROWS):
            places = order[start : start + ROWS]
            rows = _padded([documents[place] for place in places], skip)
            found[places] = np.asarray(states(leaves, *rows))[: len(places)]
        return found

    return read


def route_logits(
    features: Float[Array, "B D"], kernel: Float[Array, "D E"], bias: Float[Array, "E"]
) -> Float[Array, "B E"]:
    """The head in float32."""
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(features, kernel, precision=exact) + bias


def hard_choice(probabilities: Float[Array, "B E"], threshold: float) -> np.ndarray:
    """`[B]` the likeliest expert of each row, or `NOBODY` where even it is below the threshold."""
    probabilities = np.asarray(probabilities)
    best = probabilities.argmax(axis=1)
    return np.where(probabilities.max(axis=1) < threshold, NOBODY, best)


def soft_weights(probabilities: Float[Array, "B E"], threshold: float) -> np.ndarray:
    """`[B, E]` for `expert_gate`: the probabilities, or nothing at all where nobody is chosen."""
    chosen = hard_choice(probabilities, threshold) != NOBODY
    return np.where(chosen[:, None], np.asarray(probabilities), 0.0).astype(np.float32)


def _padded(rows: Sequence[np.ndarray], skip: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    longest = max(map(len, rows))
    shape = ROWS, -(-longest // _MULTIPLE) * _MULTIPLE
    tokens, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    own = np.zeros(shape, np.float32)
    for at, row in enumerate(rows):
        tokens[at, : len(row)], segments[at, : len(row)] = row, 1
        own[at, skip : len(row)] = 1
    return tokens, segments, own

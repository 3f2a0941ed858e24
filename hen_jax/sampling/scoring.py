"""How probable the tokens of a given text are: a forward pass, no drawing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from hen_jax.core.types import Array
from hen_jax.sampling.request_rows import gate_rows
from hen_jax.sampling.requests import AdapterMix, Top
from hen_jax.sampling.slots import gate_of
from hen_jax.sampling.weights import Weights, next_logits

SHORTEST = 64
"""Texts are padded to this many tokens, or a power of two times as many: few compilations."""


class TextScores(NamedTuple):
    """Of each token but the first, given those before it; in nats. Row `i` is of token `i + 1`."""

    log_probs: np.ndarray  # [N - 1] float32
    top: Top | None  # that of the token itself is the same number


def score_text(
    weights: Weights, tokens: tuple[int, ...], adapter: AdapterMix, columns: int, top: int
) -> TextScores:
    """The log-probabilities of a text of `N` tokens, and of the `top` most probable at each place.

    Args:
      columns: of the adapters that lie side by side in the weights; 0: none.
    """
    count = len(tokens) - 1
    padded = np.zeros((1, _padded(len(tokens))), np.int32)
    padded[0, : len(tokens)] = tokens
    gate = gate_rows([adapter.gate], 1, columns)
    found = _score(weights, padded, np.int32(len(tokens)), gate, top=max(top, 1))
    log_probs, chosen, listed = (np.asarray(leaf)[:count] for leaf in found)
    most = Top(chosen[:, :top], listed[:, :top], listed[:, :top])
    return TextScores(log_probs, most if top else None)


def _padded(length: int) -> int:
    return max(SHORTEST, 1 << (length - 1).bit_length())


def _scores(
    weights: Weights,
    tokens: Int[Array, "1 T"],
    length: Int[Array, ""],
    gate: Float[Array, "1 R"],
    top: int,
) -> tuple[Array, Array, Array]:
    T = tokens.shape[1]
    place = jnp.arange(T)[None]
    segments = (place < length).astype(jnp.int32)
    hidden = weights.model.hidden(tokens, place, segments, gate=gate_of(gate))[0]
    following = jnp.roll(tokens[0], -1)

    def piece(given: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        logits = next_logits(weights, given[0])
        log_probs = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        own = jnp.take_along_axis(log_probs, given[1][:, None], axis=-1)[:, 0]
        most, chosen = jax.lax.top_k(log_probs, top)
        return own, chosen, most

    # Piece by piece: all logits of a long text at once would be gigabytes.
    pieces = jax.tree.map(lambda x: x.reshape(-1, SHORTEST, *x.shape[1:]), (hidden, following))
    found = jax.lax.map(piece, pieces)
    return jax.tree.map(lambda x: x.reshape(T, *x.shape[2:]), found)


_score = jax.jit(_scores, static_argnames="top")

"""Attention as plain XLA operations, and who may look at whom."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from hen_jax.core.types import SHARED, Array
from hen_jax.models.products import batched_matmul

MASKED = -1e30
"""Added to the score of a key that must not be seen: finite, so that no row is all infinite."""


def causal_segment_mask(
    segments: Int[Array, "B T"], window: int | None = None
) -> Bool[Array, "B 1 T T"]:
    """True where query `t` may see key `s`: `segment_mask`, and `0 <= t - s < window`.

    Padding (segment 0) sees itself, so that no softmax runs over nothing.
    """
    T = segments.shape[1]
    same = segment_mask(segments, segments)
    causal = jnp.tril(jnp.ones((T, T), bool))
    if window is not None and window < T:
        causal &= ~jnp.tril(causal, -window)
    return (same & causal)[:, None]


def segment_mask(mine: Int[Array, "B T"], theirs: Int[Array, "B S"]) -> Bool[Array, "B T S"]:
    """True where segments are equal, and from a document to the prefix that its row shares."""
    mine, theirs = mine[:, :, None], theirs[:, None, :]
    return (mine == theirs) | ((mine > 0) & (theirs == SHARED))


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: Bool[Array, "B 1 T S"],
    scale: float | None = None,
    softcap: float | None = None,
) -> Float[Array, "B T N H"]:
    """Scaled dot-product attention with grouped queries; scores and softmax in float32.

    Plain XLA operations: the mask is honoured exactly, and there are forward- and reverse-mode
    rules, which the meta-gradients need. The `G` queries of a key head are laid along the query
    axis, so that each key head is one matrix product `[G T, H] x [H, S]`, and the division by the
    softmax's sum comes after the product with the values, on `H` numbers rather than `S`.
    """
    B, T, N, H = q.shape
    K = k.shape[2]
    grouped = q.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)
    bias = jnp.where(mask, 0.0, MASKED)
    scores = batched_matmul(grouped, k.transpose(0, 2, 3, 1))
    scores = capped(scores * (H**-0.5 if scale is None else scale), softcap)
    scores = scores + jnp.tile(bias, (1, 1, N // K, 1))
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    summed = batched_matmul(weights.astype(v.dtype), v.swapaxes(1, 2))
    out = (summed / total).astype(q.dtype).reshape(B, K, N // K, T, H)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def capped(scores: Float[Array, "*S"], softcap: float | None) -> Float[Array, "*S"]:
    """`softcap tanh(scores / softcap)`: no score is larger than the cap; None leaves them."""
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)

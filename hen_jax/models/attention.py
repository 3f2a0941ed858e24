"""Who may look at whom, and the attention itself, behind one signature for all back-ends."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from hen_jax.core.errors import InputError
from hen_jax.core.types import SHARED, Array

MASKED = -1e30
"""Added to the score of a key that must not be seen: finite, so that no row is all infinite."""

KEPT = "attended"
"""What a fused kernel must not run again for: its output and softmax sums, under this name."""

CHUNK = 256
"""Queries whose scores the "chunked" back-end holds at a time."""

Attention = Callable[[Array, Array, Array], Array]
"""`(q [B T N H], k [B T K H], v [B T K H]) -> out [B T N H]`."""


def attention(
    backend: Literal["xla", "chunked", "splash", "cudnn"],
    segments: Int[Array, "B T"],
    window: int | None,
    softcap: float | None,
    scale: float,
    mesh: Mesh | None = None,
) -> Attention:
    """Causal attention within documents, as `backend` computes it.

    Query `t` sees key `s` where `segments` are equal and `0 <= t - s < window`, counted in
    positions of the row: documents are contiguous. The plain back-ends also let it see its row's
    `SHARED` opening, if no window is shorter than the row. Scores are `scale q.k`, then
    `softcap tanh(score / softcap)`. `mesh` says where q, k and v live: a kernel runs per device.

    Raises:
      InputError: an unknown back-end, or one that would not honour all of this.
    """
    match backend:
        case "xla":
            mask = document_mask(segments, window)
            return partial(attend, mask=mask, scale=scale, softcap=softcap)
        case "chunked":
            return partial(
                attend_chunked, segments=segments, window=window, scale=scale, softcap=softcap
            )
        case "splash" | "cudnn":
            # Imported here: the kernels' packages take a while to load and few runs need them.
            from hen_jax.models import fused_attention

            if backend == "cudnn":
                return fused_attention.cudnn(segments, window, softcap, scale)
            return fused_attention.splash(segments, window, softcap, scale, mesh)
    raise InputError(
        f"execution.attention is {backend!r}; there are 'xla', 'chunked', 'splash' and 'cudnn'"
    )


def document_mask(segments: Int[Array, "B T"], window: int | None = None) -> Bool[Array, "B 1 T T"]:
    """True where query `t` may see key `s`: `visible`, and `0 <= t - s < window`.

    Padding (segment 0) sees itself, so that no softmax runs over nothing.
    """
    T = segments.shape[1]
    same = visible(segments, segments)
    causal = jnp.tril(jnp.ones((T, T), bool))
    if window is not None and window < T:
        causal &= ~jnp.tril(causal, -window)
    return (same & causal)[:, None]


def visible(mine: Int[Array, "B T"], theirs: Int[Array, "B S"]) -> Bool[Array, "B T S"]:
    """True where segments are equal, and from a document to the opening that its row shares."""
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
    scores = jnp.einsum("BKMH,BSKH->BKMS", grouped, k, preferred_element_type=jnp.float32)
    scores = capped(scores * (H**-0.5 if scale is None else scale), softcap)
    scores = scores + jnp.tile(bias, (1, 1, N // K, 1))
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    summed = jnp.einsum(
        "BKMS,BSKH->BKMH", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    out = (summed / total).astype(q.dtype).reshape(B, K, N // K, T, H)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def attend_chunked(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    window: int | None,
    scale: float,
    softcap: float | None = None,
    chunk: int = CHUNK,
) -> Float[Array, "B T N H"]:
    """`attend` for `chunk` queries at a time: `[B, N, chunk, S]` scores are held, not all `T`.

    The backward pass forms each chunk's scores again. A window shortens `S` to the keys that a
    chunk can reach.
    """
    B, T, N, H = q.shape
    chunk = min(chunk, T)
    chunks = -(-T // chunk)
    reach = T if window is None else min(T, chunk + window - 1)
    padded = jnp.pad(q, [(0, 0), (0, chunks * chunk - T), (0, 0), (0, 0)])

    def one(start: Int[Array, ""], queries: Float[Array, "B C N H"]) -> Float[Array, "B C N H"]:
        # What lies beyond the end of the row is cut off again below; it only must see something.
        t = jnp.minimum(start + jnp.arange(chunk), T - 1)
        first = jnp.clip(start + chunk - reach, 0, T - reach)
        s = first + jnp.arange(reach)
        keys, values, theirs = (
            jax.lax.dynamic_slice_in_dim(x, first, reach, axis=1) for x in (k, v, segments)
        )
        seen = (s <= t[:, None]) & (t[:, None] - s < (window or T))
        mask = seen & visible(segments[:, t], theirs)
        return attend(queries, keys, values, mask[:, None], scale, softcap)

    def step(_: None, xs: tuple[Array, Array]) -> tuple[None, Array]:
        return None, jax.checkpoint(one, prevent_cse=False)(*xs)

    split = padded.reshape(B, chunks, chunk, N, H).swapaxes(0, 1)
    _, out = jax.lax.scan(step, None, (jnp.arange(chunks) * chunk, split))
    return out.swapaxes(0, 1).reshape(B, -1, N, H)[:, :T]


def capped(scores: Float[Array, "*S"], softcap: float | None) -> Float[Array, "*S"]:
    """`softcap tanh(scores / softcap)`: no score is larger than the cap; None leaves them."""
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)

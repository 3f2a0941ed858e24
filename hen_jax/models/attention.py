"""Attention behind one signature for all back-ends."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Float, Int

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, RowLimits
from hen_jax.models.dot_product import attend, causal_segment_mask, segment_mask
from hen_jax.models.packed_attention import scores_within_limits, within_limits

PLAIN = ("xla", "chunked")
"""The back-ends that let a document see the prefix that its row shares."""

_CHUNK = 256
"""Queries whose scores the "chunked" back-end holds at a time."""

AttentionFunction = Callable[[Array, Array, Array], Array]
"""`(q [B T N H], k [B T K H], v [B T K H]) -> out [B T N H]`."""


def attention(
    backend: Literal["xla", "chunked", "splash", "cudnn"],
    segments: Int[Array, "B T"],
    window: int | None,
    softcap: float | None,
    scale: float,
    mesh: Mesh | None = None,
    reach: RowLimits | None = None,
) -> AttentionFunction:
    """Causal attention within documents, as `backend` computes it.

    Query `t` sees key `s` where `segments` are equal and `0 <= t - s < window`, counted in
    positions of the row: documents are contiguous. The plain back-ends also let it see its row's
    `SHARED` prefix, if no window is shorter than the row. Scores are `scale q.k`, then
    `softcap tanh(score / softcap)`. `mesh` says where q, k and v live: a kernel runs per device.
    The caller must ensure that rows keep to this and to `reach` (`Decoder.hidden` makes NaN of
    those that do not).

    Raises:
      InputError: an unknown back-end, or one that would not honour all of this.
    """
    match backend:
        case "xla" | "chunked":
            return _plain(backend, segments, window, softcap, scale, reach)
        case "splash" | "cudnn":
            # Imported here: the kernels' packages take a while to load and few runs need them.
            from hen_jax.models import fused_attention

            if backend == "cudnn":
                return fused_attention.cudnn(segments, window, softcap, scale)
            return fused_attention.splash(segments, window, softcap, scale, mesh)
    raise InputError(
        f"execution.attention is {backend!r}; there are 'xla', 'chunked', 'splash' and 'cudnn'"
    )


def _plain(
    backend: Literal["xla", "chunked"],
    segments: Int[Array, "B T"],
    window: int | None,
    softcap: float | None,
    scale: float,
    reach: RowLimits | None,
) -> AttentionFunction:
    """Without scores beyond `reach` and the window, where that pays.

    For "xla" if they are fewer then, for "chunked" if they take at most twice its memory.
    """
    T, given = segments.shape[1], {"scale": scale, "softcap": softcap}
    scores = scores_within_limits(reach, window, T)
    if backend == "chunked":
        if scores < T * T and scores <= 2 * _CHUNK * T:
            near = within_limits(segments, reach, window, **given)
            return jax.checkpoint(near, prevent_cse=False)
        return partial(attend_chunked, segments=segments, window=window, **given)
    if scores < T * T:
        return within_limits(segments, reach, window, **given)
    return partial(attend, mask=causal_segment_mask(segments, window), **given)


def attend_chunked(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    window: int | None,
    scale: float,
    softcap: float | None = None,
    chunk: int = _CHUNK,
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
        mask = seen & segment_mask(segments[:, t], theirs)
        return attend(queries, keys, values, mask[:, None], scale, softcap)

    def step(_: None, xs: tuple[Array, Array]) -> tuple[None, Array]:
        return None, jax.checkpoint(one, prevent_cse=False)(*xs)

    split = padded.reshape(B, chunks, chunk, N, H).swapaxes(0, 1)
    _, out = jax.lax.scan(step, None, (jnp.arange(chunks) * chunk, split))
    return out.swapaxes(0, 1).reshape(B, -1, N, H)[:, :T]

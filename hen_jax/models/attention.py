"""Who may look at whom, and the attention itself, behind one signature for all back-ends."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from hen_jax.core.errors import InputError
from hen_jax.core.types import SHARED, Array, Reach

MASKED = -1e30
"""Added to the score of a key that must not be seen: finite, so that no row is all infinite."""

KEPT = "attended"
"""What a fused kernel must not run again for: its output and softmax sums, under this name."""

CHUNK = 256
"""Queries whose scores the "chunked" back-end holds at a time."""

LANES = 8
"""The opening and the blocks of `attend_near` are multiples of so many positions."""

Attention = Callable[[Array, Array, Array], Array]
"""`(q [B T N H], k [B T K H], v [B T K H]) -> out [B T N H]`."""


def attention(
    backend: Literal["xla", "chunked", "splash", "cudnn"],
    segments: Int[Array, "B T"],
    window: int | None,
    softcap: float | None,
    scale: float,
    mesh: Mesh | None = None,
    reach: Reach | None = None,
) -> Attention:
    """Causal attention within documents, as `backend` computes it.

    Query `t` sees key `s` where `segments` are equal and `0 <= t - s < window`, counted in
    positions of the row: documents are contiguous. The plain back-ends also let it see its row's
    `SHARED` opening, if no window is shorter than the row. Scores are `scale q.k`, then
    `softcap tanh(score / softcap)`. `mesh` says where q, k and v live: a kernel runs per device.
    A row that does not keep to `reach` is the caller's affair.

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
    reach: Reach | None,
) -> Attention:
    """Without scores beyond `reach` and the window, where that pays.

    For "xla" if they are fewer then, for "chunked" if they take at most twice its memory.
    """
    T = segments.shape[1]
    keys, given = keys_in_reach(reach, window, T), {"scale": scale, "softcap": softcap}
    near = partial(attend_near, segments=segments, reach=reach, window=window, **given)
    if backend == "chunked":
        if keys < T and keys <= 2 * CHUNK:
            return jax.checkpoint(near, prevent_cse=False)
        return partial(attend_chunked, segments=segments, window=window, **given)
    return near if keys < T else partial(attend, mask=document_mask(segments, window), **given)


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


def attend_near(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    reach: Reach | None,
    window: int | None,
    scale: float,
    softcap: float | None = None,
) -> Float[Array, "B T N H"]:
    """`attend`, with the scores of those keys only that a document can reach.

    A row is cut into blocks as long as a document (or the window). The queries of a block meet the
    opening of the row, the block before theirs and their own: with documents of 200 positions and
    an opening of 48, 448 keys however long the row. All blocks of all rows are one batch of
    `attend`.
    """
    B, T, N, H = q.shape
    opening, block = _blocks(reach, window, T)
    count = -(-T // block)

    def blocks(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0), (0, count * block - T)] + [(0, 0)] * (x.ndim - 2))
        return padded.reshape(B, count, block, *x.shape[2:])

    def reached(x: Array) -> Array:
        own = blocks(x)
        before = jnp.pad(own[:, :-1], [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 1))
        first = jnp.broadcast_to(x[:, None, :opening], (B, count, opening, *x.shape[2:]))
        return jnp.concatenate([first, before, own], axis=2)

    def together(x: Array) -> Array:
        return x.reshape(B * count, *x.shape[2:])

    start = jnp.arange(count)[:, None, None] * block
    t = start + jnp.arange(block)[:, None]
    s = start + jnp.arange(-block, block)
    # What the opening covers is met there, not once more in a block.
    first = jnp.broadcast_to(jnp.arange(opening), (count, 1, opening))
    s = jnp.concatenate([first, jnp.where(s < opening, count * block, s)], axis=2)
    seen = (s <= t) & (t - s < (window or T))
    mask = visible(together(blocks(segments)), together(reached(segments)))
    mask &= jnp.tile(seen, (B, 1, 1))
    keys, values = together(reached(k)), together(reached(v))
    out = attend(together(blocks(q)), keys, values, mask[:, None], scale, softcap)
    return out.reshape(B, count * block, N, H)[:, :T]


def beyond(segments: Int[Array, "B T"], reach: Reach) -> Bool[Array, "B 1 1"]:
    """True for a row with a document or an opening longer than `reach`."""
    last = segments[:, reach.document :]
    document = (last > 0) & (last == segments[:, : last.shape[1]])
    opening = segments[:, reach.opening :] == SHARED
    return (document.any(axis=1) | opening.any(axis=1))[:, None, None]


def keys_in_reach(reach: Reach | None, window: int | None, T: int) -> int:
    """How many keys each query of `attend_near` meets."""
    opening, block = _blocks(reach, window, T)
    return opening + 2 * block


def _blocks(reach: Reach | None, window: int | None, T: int) -> tuple[int, int]:
    """Positions of the opening, and of a block: as far as a query looks back."""
    near = min(reach.document if reach else T, window or T, T)
    return min(_rounded(reach.opening), T) if reach else 0, _rounded(near)


def _rounded(positions: int) -> int:
    return -(-positions // LANES) * LANES


def capped(scores: Float[Array, "*S"], softcap: float | None) -> Float[Array, "*S"]:
    """`softcap tanh(scores / softcap)`: no score is larger than the cap; None leaves them."""
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)

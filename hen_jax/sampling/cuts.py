"""Which tokens can be drawn: the top k, the top p, those probable enough; by row, and exact."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from hen_jax.core.types import Array

SHORT, LEADING = 16, 256
"""Tokens of a block, and blocks, among which `top_k` and `top_p` first look where to cut."""


def top_k_mask(logits: Float[Array, "B V"], top_k: Int[Array, "B"]) -> Bool[Array, "B V"]:
    """True at the `top_k` largest of a row, and at all that tie with the last of them; 0: all."""
    wanted = top_k.astype(jnp.float32)  # counts all tokens of a vocabulary exactly
    return _rank(logits) >= _last_kept(logits, jnp.ones_like, wanted)[:, None]


def top_p_mask(logits: Float[Array, "B V"], top_p: Float[Array, "B"]) -> Bool[Array, "B V"]:
    """True at the fewest largest whose probabilities sum to at least `top_p`, ties included.

    Of probabilities (.5, .3, .15, .05) `top_p` .83 keeps three (.5 + .3 is too little).
    """
    probs = jax.nn.softmax(logits, axis=-1)
    # XLA takes a subnormal number for 0, and then no token at all would be enough.
    wanted = jnp.maximum(top_p, jnp.finfo(jnp.float32).tiny)
    wanted = jnp.where(top_p >= 1, 0.0, wanted)
    return _rank(probs) >= _last_kept(probs, lambda p: p, wanted)[:, None]


def min_p_mask(logits: Float[Array, "B V"], min_p: Float[Array, "B"]) -> Bool[Array, "B V"]:
    """True where a probability is at least `min_p` times the largest (Nguyen et al., 2024)."""
    return logits >= (logits.max(axis=-1) + jnp.log(min_p))[:, None]


def _rank(values: Float[Array, "*S"]) -> Int[Array, "*S"]:
    """Integers in the order of the numbers: the bits of float32, those below 0 turned round."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _last_kept(
    values: Float[Array, "B V"], weigh: Callable[[Array], Array], wanted: Float[Array, "B"]
) -> Int[Array, "B"]:
    """The largest rank from which on the weights of a row sum to at least `wanted`; 0: the least.

    It is looked for among the tokens of the `LEADING` blocks with the largest maxima, and it is
    the row's if it exceeds all that the other blocks hold; otherwise, of any row, among all tokens.
    Exact: at 32 x 49,152 on a CPU it takes 4 ms or 35 ms; a sort takes twenty times as long.
    """

    def among_all() -> Int[Array, "B"]:
        return _bisect(values, weigh, wanted)

    if values.shape[-1] <= LEADING * SHORT:
        return among_all()
    leading, rest = _leading(values)
    last = _bisect(leading, weigh, wanted)
    return jax.lax.cond(((last > _rank(rest)) | (wanted == 0)).all(), lambda: last, among_all)


def _leading(values: Float[Array, "B V"]) -> tuple[Float[Array, "B N"], Float[Array, "B"]]:
    """The tokens of the leading blocks of `SHORT`, and what no token of the others exceeds."""
    B, V = values.shape
    padded = jnp.pad(values, [(0, 0), (0, -V % SHORT)], constant_values=-jnp.inf)
    blocks = padded.reshape(B, -1, SHORT)
    # XLA CPU: by their indices alone; a slice of what `top_k` gives would make it sort all blocks.
    index = jax.lax.top_k(blocks.max(axis=-1), LEADING)[1]
    leading = jnp.take_along_axis(blocks, index[:, :, None], axis=1)
    return leading.reshape(B, -1), leading.max(axis=-1).min(axis=-1)


def _bisect(
    values: Float[Array, "B N"], weigh: Callable[[Array], Array], wanted: Float[Array, "B"]
) -> Int[Array, "B"]:
    """`_last_kept` of these values, in 32 sums of a row."""
    ranks, weights = _rank(values), weigh(values)

    def narrow(_: Int[Array, ""], ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, which their sum may overflow
        kept = jnp.where(ranks >= middle[:, None], weights, 0.0).sum(axis=-1) >= wanted
        return jnp.where(kept, middle, low), jnp.where(kept, high, middle)

    low = jnp.full(wanted.shape, jnp.iinfo(jnp.int32).min, jnp.int32)
    low, _ = jax.lax.fori_loop(0, 32, narrow, (low, jnp.full_like(low, jnp.iinfo(jnp.int32).max)))
    return jnp.where(wanted == 0, jnp.iinfo(jnp.int32).min, low)

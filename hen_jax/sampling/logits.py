"""From logits to a token: temperature, top-k, top-p, and the log-probability of what was drawn."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key, UInt

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is drawn: divide by `temperature`, keep the top `k`, of those the top `p`.

    Temperature 0 is greedy and ignores the rest; `top_k` 0 and `top_p` 1 keep everything.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}; give 0 (greedy) or more")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; give 0 (keep all) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; give more than 0, at most 1 (keep all)")


class Drawn(NamedTuple):
    """One token per row and how probable it was, in nats.

    `log_probs` is under the model itself (temperature 1, nothing cut off): what a training forward
    pass recomputes, hence the numerator's twin in a policy ratio. `sampling_log_probs` is under the
    distribution the token was drawn from: what importance weights need where the two differ. Under
    temperature 0 it is 0 (the draw was certain).
    """

    tokens: Int[Array, "B"]
    log_probs: Float[Array, "B"]
    sampling_log_probs: Float[Array, "B"]


def draw(logits: Float[Array, "B V"], keys: Key[Array, "B"], sampling: Sampling) -> Drawn:
    """Draws a token per row; `keys` has one key per row, so no row's draw depends on the others."""
    own = jnp.asarray(logits, jnp.float32)
    if sampling.temperature == 0:
        tokens = jnp.argmax(own, axis=-1).astype(jnp.int32)
        return Drawn(tokens, log_prob_of(own, tokens), jnp.zeros(tokens.shape))
    shaped = truncated(own / sampling.temperature, sampling.top_k, sampling.top_p)
    tokens = jax.vmap(jax.random.categorical)(keys, shaped).astype(jnp.int32)
    return Drawn(tokens, log_prob_of(own, tokens), log_prob_of(shaped, tokens))


def log_prob_of(logits: Float[Array, "B V"], tokens: Int[Array, "B"]) -> Float[Array, "B"]:
    """The log-softmax at one token per row, without building the others."""
    at_token = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return at_token - jax.nn.logsumexp(logits, axis=-1)


def truncated(logits: Float[Array, "B V"], top_k: int, top_p: float) -> Float[Array, "B V"]:
    """Minus infinity but for the top `k`, and of those the smallest set of probability `p`.

    Top-p (Holtzman et al., 2020) counts probabilities renormalised over the top `k`. Tokens that
    tie with the last one kept are kept too. Of probabilities (.5, .3, .15, .05) `top_p=0.83` keeps
    three (.5 + .3 is too little); with `top_k=3` it keeps two: (.5 + .3) / .95 = .842.
    """
    V = logits.shape[-1]
    if 0 < top_k < V:
        logits = jnp.where(top_k_mask(logits, top_k), logits, -jnp.inf)
    if top_p < 1:
        logits = jnp.where(top_p_mask(logits, top_p), logits, -jnp.inf)
    return logits


def top_k_mask(logits: Float[Array, "B V"], top_k: int) -> Bool[Array, "B V"]:
    """True at the `top_k` largest, and at all that tie with the last of them."""
    return _largest(logits, lambda keep: keep.sum(axis=-1) >= top_k)


def top_p_mask(logits: Float[Array, "B V"], top_p: float) -> Bool[Array, "B V"]:
    """True at the fewest largest whose probabilities sum to at least `top_p`, ties included."""
    probs = jax.nn.softmax(logits, axis=-1)
    return _largest(logits, lambda keep: jnp.where(keep, probs, 0.0).sum(axis=-1) >= top_p)


def _largest(
    logits: Float[Array, "B V"], enough: Callable[[Array], Bool[Array, "B"]]
) -> Bool[Array, "B V"]:
    """The smallest set `{v: logits[v] >= threshold}` that is `enough`, by bisection.

    Thresholds are searched bit by bit over all float32 numbers, so the answer is exact after 32
    reductions of the row; a sort of 50,000 logits costs several times that.
    """
    ranks = _ordered(logits)

    def narrow(_: Int[Array, ""], ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends  # `ranks >= low` is enough, `ranks >= high` is not
        middle = low + (high - low) // 2
        holds = enough(ranks >= middle[:, None])
        return jnp.where(holds, middle, low), jnp.where(holds, high, middle)

    rows = logits.shape[:1]
    ends = (jnp.zeros(rows, jnp.uint32), jnp.full(rows, jnp.iinfo(jnp.uint32).max, jnp.uint32))
    low, _ = jax.lax.fori_loop(0, 32, narrow, ends)
    return ranks >= low[:, None]


def _ordered(x: Float[Array, "B V"]) -> UInt[Array, "B V"]:
    """Unsigned integers in the order of the float32 numbers: all bits of negatives flipped."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits >= sign, ~bits, bits | sign)

"""From logits to a token: temperature, top-k, top-p, and the log-probability of what was drawn."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array

COLDEST, HOTTEST = 1e-5, 1e5
"""Temperatures at which all logits of a model can be told apart, and float32 holds them."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is drawn: divide by `temperature`, keep the top `k`, of those the top `p`.

    Temperature 0 is greedy and ignores the rest; `top_k` 0 and `top_p` 1 keep everything.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        # Below, logits divided by it leave float32, or it counts as 0 itself: NaN either way.
        if self.temperature != 0 and not COLDEST <= self.temperature <= HOTTEST:
            raise InputError(
                f"temperature is {self.temperature}; give 0 (greedy), or {COLDEST:g} to {HOTTEST:g}"
            )
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
    largest, _ = jax.lax.top_k(logits, top_k)
    # Not `largest[:, -1:]`: of a top-k that only its last entry is read XLA makes a full sort.
    return logits >= largest.min(axis=-1, keepdims=True)


def top_p_mask(logits: Float[Array, "B V"], top_p: float) -> Bool[Array, "B V"]:
    """True at the fewest largest whose probabilities sum to at least `top_p`, ties included.

    The smallest probability kept is found by bisection over the bits of float32, which are in the
    order of the numbers: exact, in 30 sums of the row. On a CPU a sort of 8 x 49,152 logits took
    twenty times as long.
    """
    probs = jax.nn.softmax(logits, axis=-1)
    ranks = jax.lax.bitcast_convert_type(probs, jnp.int32)

    def narrow(_: Int[Array, ""], ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends  # probabilities from `low` on are enough, from `high` on they are not
        middle = (low + high) // 2
        enough = jnp.where(ranks >= middle[:, None], probs, 0.0).sum(axis=-1) >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    # XLA takes a subnormal number for 0, and then no token at all would be enough.
    top_p = max(top_p, float(jnp.finfo(jnp.float32).tiny))
    above_one = jnp.full(logits.shape[:1], 0x3F800001, jnp.int32)  # the bits after those of 1.0
    low, _ = jax.lax.fori_loop(0, 30, narrow, (jnp.zeros_like(above_one), above_one))
    return ranks >= low[:, None]

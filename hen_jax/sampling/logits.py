"""From logits to a token, each row by settings of its own: penalties, temperature, what is cut off.

In transformers' order: bias, repetition penalty, presence penalty, temperature, top-k, top-p,
min-p.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array
from hen_jax.sampling.cuts import min_p_mask, top_k_mask, top_p_mask

COLDEST, HOTTEST = 1e-5, 1e5
"""Temperatures at which all logits of a model can be told apart, and float32 holds them."""

PROMPT, REPLY = 1, 2
"""The bits of a token's mark: it stands in the prompt, in the reply so far."""

BLOCK = 128
"""Tokens among which the second step of a draw chooses."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is drawn: divide by `temperature`, keep the top `k`, of those the top `p`, of
    those the ones at least `min_p` times as probable as the most probable one.

    Temperature 0 is greedy and cuts nothing off; `top_k` 0, `top_p` 1 and `min_p` 0 keep all.
    Before that, greedy or not, `logit_bias` is added, the logit of a token that stands in the
    prompt or the reply is divided by `repetition_penalty` where it is positive and multiplied where
    it is not (Keskar et al., 2019), and `presence_penalty` is subtracted from that of one that
    stands in the reply.

    Raises:
      InputError: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added)

    def __post_init__(self):
        # Below, logits divided by it leave float32, or it counts as 0 itself: NaN either way.
        if self.temperature != 0 and not COLDEST <= self.temperature <= HOTTEST:
            raise InputError(
                f"temperature is {self.temperature}; give 0 (greedy), or {COLDEST:g} to {HOTTEST:g}"
            )
        if not 0 <= self.top_k < 2**31:
            raise InputError(f"top_k is {self.top_k}; give 0 (keep all) to {2**31 - 1}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; give more than 0, at most 1 (keep all)")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}; give 0 (keep all) to 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise InputError(
                f"repetition_penalty is {self.repetition_penalty}; give more than 0 (1: none)"
            )
        if not abs(self.presence_penalty) < float("inf"):
            raise InputError(f"presence_penalty is {self.presence_penalty}; give a finite number")
        for token, value in self.logit_bias:
            if token < 0 or not abs(value) < float("inf"):
                raise InputError(
                    f"logit_bias holds {token}: {value}; give token ids from 0, finite numbers"
                )

    @property
    def filters(self) -> bool:
        """Whether some tokens cannot be drawn."""
        return self.temperature != 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)


class RowSampling(NamedTuple):
    """`Sampling` of each row, as arrays: rows change theirs without a compilation."""

    temperature: Float[Array, "B"]
    top_k: Int[Array, "B"]
    top_p: Float[Array, "B"]
    min_p: Float[Array, "B"]
    repetition_penalty: Float[Array, "B"]
    presence_penalty: Float[Array, "B"]
    bias_tokens: Int[Array, "B N"]  # `V` or more: nothing
    bias: Float[Array, "B N"]


def row_sampling(rows: Sequence[Sampling], biases: int) -> RowSampling:
    """The settings of each row as numpy arrays, with room for `biases` biased tokens a row.

    Raises:
      InputError: a row biases more tokens.
    """
    tokens = np.full((len(rows), biases), np.iinfo(np.int32).max, np.int32)
    values = np.zeros((len(rows), biases), np.float32)
    for row, sampling in enumerate(rows):
        given = sampling.logit_bias
        if len(given) > biases:
            raise InputError(f"logit_bias names {len(given)} tokens; there is room for {biases}")
        for place, (token, value) in enumerate(given):
            tokens[row, place], values[row, place] = token, value

    def column(name: str, dtype: type) -> np.ndarray:
        return np.asarray([vars(sampling)[name] for sampling in rows], dtype)

    return RowSampling(
        column("temperature", np.float32),
        column("top_k", np.int32),
        column("top_p", np.float32),
        column("min_p", np.float32),
        column("repetition_penalty", np.float32),
        column("presence_penalty", np.float32),
        tokens,
        values,
    )


class Drawn(NamedTuple):
    """One token per row and how probable it was, in nats.

    `log_probs` is under the model itself (temperature 1, nothing cut off or penalised): what a
    training forward pass recomputes, hence the numerator's twin in a policy ratio.
    `sampling_log_probs` is under the distribution the token was drawn from: what importance weights
    need where the two differ. Under temperature 0 it is 0 (the draw was certain). `shaped` are that
    distribution's logits, minus infinity at what is cut off.
    """

    tokens: Int[Array, "B"]
    log_probs: Float[Array, "B"]
    sampling_log_probs: Float[Array, "B"]
    shaped: Float[Array, "B V"]


def draw(
    logits: Float[Array, "B V"],
    rows: RowSampling,
    marks: UInt8[Array, "B V"],
    uniforms: Float[Array, "B 2"],
) -> Drawn:
    """Draws a token per row, which depends on that row's numbers alone.

    Args:
      marks: which tokens stand in the prompt and the reply (`PROMPT`, `REPLY`).
      uniforms: in [0, 1), two per row; the draw is a function of them.
    """
    own = jnp.asarray(logits, jnp.float32)
    shaped = shape_logits(own, rows, marks)
    greedy = rows.temperature == 0
    best = most_likely(shaped)

    def mixed() -> tuple[Int[Array, "B"], Float[Array, "B"]]:
        tokens = jnp.where(greedy, best, categorical(shaped, uniforms))
        return tokens, jnp.where(greedy, 0.0, log_prob_of(shaped, tokens))

    certain = best, jnp.zeros(best.shape, jnp.float32)
    tokens, sampled = jax.lax.cond(greedy.all(), lambda: certain, mixed)
    return Drawn(tokens, log_prob_of(own, tokens), sampled, shaped)


def most_likely(logits: Float[Array, "B V"]) -> Int[Array, "B"]:
    """`argmax`, the first of those that tie. XLA CPU: two plain reductions, six times as fast."""
    V = logits.shape[-1]
    best = logits == logits.max(axis=-1, keepdims=True)
    return jnp.where(best, jnp.arange(V, dtype=jnp.int32), V - 1).min(axis=-1)  # NaN: the last


def shape_logits(
    logits: Float[Array, "B V"], rows: RowSampling, marks: UInt8[Array, "B V"]
) -> Float[Array, "B V"]:
    """The logits that tokens are drawn from; of a greedy row, those whose largest is taken."""
    logits = _where_any(rows.bias != 0, lambda x: biased(x, rows), logits)
    penalised = (rows.repetition_penalty != 1) | (rows.presence_penalty != 0)
    logits = _where_any(penalised, lambda x: penalise(x, rows, marks), logits)
    greedy = rows.temperature == 0
    logits = logits / jnp.where(greedy, 1.0, rows.temperature)[:, None]
    top_k = jnp.where(greedy, 0, rows.top_k)
    top_p = jnp.where(greedy, 1.0, rows.top_p)
    min_p = jnp.where(greedy, 0.0, rows.min_p)
    logits = _where_any(top_k > 0, lambda x: _cut(x, top_k_mask(x, top_k)), logits)
    logits = _where_any(top_p < 1, lambda x: _cut(x, top_p_mask(x, top_p)), logits)
    return _where_any(min_p > 0, lambda x: _cut(x, min_p_mask(x, min_p)), logits)


def _where_any(wanted: Bool[Array, "..."], change, logits: Float[Array, "B V"]) -> Array:
    return jax.lax.cond(wanted.any(), change, lambda x: x, logits)


def _cut(logits: Float[Array, "B V"], kept: Bool[Array, "B V"]) -> Float[Array, "B V"]:
    return jnp.where(kept, logits, -jnp.inf)


def biased(logits: Float[Array, "B V"], rows: RowSampling) -> Float[Array, "B V"]:
    """The logits with each row's bias added."""
    every = jnp.arange(logits.shape[0])[:, None]
    return logits.at[every, rows.bias_tokens].add(rows.bias, mode="drop")


def penalise(
    logits: Float[Array, "B V"], rows: RowSampling, marks: UInt8[Array, "B V"]
) -> Float[Array, "B V"]:
    """The logits with each row's repetition and presence penalty; see `Sampling`."""
    factor = rows.repetition_penalty[:, None]
    repeated = jnp.where(logits < 0, logits * factor, logits / factor)
    logits = jnp.where(marks > 0, repeated, logits)
    return logits - jnp.where(marks >= REPLY, rows.presence_penalty[:, None], 0.0)


def categorical(logits: Float[Array, "B V"], uniforms: Float[Array, "B 2"]) -> Int[Array, "B"]:
    """A token per row by its probability, from two uniform numbers: a block of `BLOCK` tokens, and
    one of the block.

    Two numbers a row and no noise for every token: on a CPU Gumbel noise for 32 x 49,152 logits
    takes as long as a layer.
    """
    B, V = logits.shape
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    blocks = jnp.pad(weights, [(0, 0), (0, -V % BLOCK)]).reshape(B, -1, BLOCK)
    block = _choose(blocks.sum(axis=-1), uniforms[:, 0])
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return block * BLOCK + _choose(inside, uniforms[:, 1])


def _choose(weights: Float[Array, "B N"], uniform: Float[Array, "B"]) -> Int[Array, "B"]:
    """The first index up to which the weights sum to more than `uniform` of the whole."""
    sums = jnp.cumsum(weights, axis=-1)
    index = (sums <= (uniform * sums[:, -1])[:, None]).sum(axis=-1)
    # The product may be rounded up to the whole.
    last = weights.shape[1] - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=-1)
    return jnp.minimum(index, last).astype(jnp.int32)


def log_prob_of(logits: Float[Array, "B V"], tokens: Int[Array, "B"]) -> Float[Array, "B"]:
    """The log-softmax at one token per row, without building the others."""
    at_token = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return at_token - jax.nn.logsumexp(logits, axis=-1)

"""Log-probabilities of trained positions, without ever building all logits."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.types import Array, Mean
from hen_jax.models.products import save_for_backward


class TokenScores(NamedTuple):
    """What the model says of each target; zero where `mask` is zero."""

    log_probs: Float[Array, "B T"]  # natural log
    correct: Float[Array, "B T"]  # 1 where the target has the highest logit


_Measured = TypeVar("_Measured", bound=tuple)


def _scored(logits: Float[Array, "B C V"], targets: Int[Array, "B C"]) -> TokenScores:
    at_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    log_probs = at_target - jax.nn.logsumexp(logits, axis=-1)
    correct = (at_target >= logits.max(axis=-1)).astype(jnp.float32)
    return TokenScores(log_probs, correct)


def score_tokens(
    logits: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    mask: Float[Array, "B T"],
    capacity: int | None = None,
    chunk: int = 64,
    measure: Callable[[Float[Array, "B C V"], Int[Array, "B C"]], _Measured] = _scored,
) -> _Measured:
    """Scores the targets of the positions with mask > 0; `logits` is the decoder's, in float32.

    In each row these positions are moved to the front and only the first `capacity` of a row (the
    most that any row trains, known to whoever packed the rows; default `T`) go through the
    vocabulary product, `chunk` at a time: the largest temporary is `[B, chunk, V]`, the backward
    pass recomputes it if there are several chunks, and rows stay on their device when `B` is
    sharded. A row that trains more positions than `capacity` scores NaN rather than being cut
    short. `measure(logits, targets)` is what is computed: a NamedTuple of `[B, C]` arrays.

    Worked example: with `T = 512` and 22 % trained, `capacity = 128` runs 2 chunks of 64, not 8.
    """
    T = targets.shape[1]
    most = T if capacity is None else min(capacity, T)
    chunk = min(chunk, most)
    order = jnp.argsort(mask <= 0, axis=1, stable=True)[:, :most]
    padding = -most % chunk

    def to_chunks(x: Array) -> Array:
        front = jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)
        padded = jnp.pad(front, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    # Logits of a single chunk are needed again at once: no memory would be spared.
    several = most > chunk

    def score(_: None, part: tuple[Array, Array]) -> tuple[None, _Measured]:
        h, y = part
        return None, measure(logits(h) if several else save_for_backward(logits(h)), y)

    step = jax.checkpoint(score) if several else score
    _, scored = jax.lax.scan(step, None, (to_chunks(hidden), to_chunks(targets)))
    rows = jnp.arange(len(targets))[:, None]
    overfull = (mask > 0).sum(axis=1, keepdims=True) > most

    def to_rows(x: Array) -> Array:
        front = jnp.moveaxis(x, 0, 1).reshape(len(targets), -1)[:, :most]
        placed = jnp.zeros(targets.shape, x.dtype).at[rows, order].set(front)
        return jnp.where(mask > 0, jnp.where(overfull, jnp.nan, placed), 0.0)

    return jax.tree.map(to_rows, scored)


def negative_log_likelihood(
    scores: TokenScores, mask: Float[Array, "B T"], weight: Float[Array, "B"] | None = None
) -> tuple[Mean, dict[str, Mean]]:
    """Token cross-entropy in nats as a sum and a count, and the share of right top-1 guesses.

    A row's `weight` scales both its sum and its count: `sum(w m nll) / sum(w m)`.
    """
    rows = mask if weight is None else mask * weight[:, None]
    count = rows.sum()
    loss = Mean(-(scores.log_probs * rows).sum(), count)
    return loss, {"accuracy": Mean((scores.correct * rows).sum(), count)}

"""Models of preference: what scores say about which of two or more replies is the better.

All losses are in nats and take float32 scores. `d` is the difference of two scores after
temperature and margin: `d = (first - second) / beta - margin`; the two do not commute.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from hen_jax.core.types import Array, Mean

Ties = Literal["half", "rao_kupper", "davidson"]


class Votes(NamedTuple):
    """What people said of a pair, as shares in [0, 1]; the rest preferred the second.

    The share of annotators says more than their majority: 3 of 4 for the first is `win = 0.75`.
    """

    win: Float[Array, "*P"]
    tie: Float[Array, "*P"]


def reward_gap(
    first: Float[Array, "*#P"],
    second: Float[Array, "*#P"],
    beta: float | Float[Array, ""] = 1.0,
    margin: float | Float[Array, "*#P"] = 0.0,
) -> Float[Array, "*P"]:
    """`(first - second) / beta - margin`: a smaller temperature makes the same gap surer."""
    return (first - second) / beta - margin


def pair_loss(
    d: Float[Array, "*P"],
    outcome: Votes,
    ties: Ties = "half",
    threshold: float | Float[Array, ""] = 0.5,
) -> Float[Array, "*P"]:
    """`-log P(outcome)` of each pair, shares of annotators weighting the outcomes.

    "half" is Bradley and Terry (1952) with a tie as half a win for each. "rao_kupper" (1967)
    calls a tie when neither leads by more than `threshold` > 0 (its log theta). "davidson" (1970)
    makes ties likelier the nearer the scores, with `threshold` the log of nu.

    Equal scores give ln 2 under "half" whatever the outcome, and the loss depends on scores only
    through `d`.
    """
    lose = 1.0 - outcome.win - outcome.tie
    first, second, tied = _log_shares(d, ties, threshold)
    if ties == "half":
        half = 0.5 * outcome.tie
        return -((outcome.win + half) * first + (lose + half) * second)
    return -(outcome.win * first + lose * second + outcome.tie * tied)


def _log_shares(
    d: Float[Array, "*P"], ties: Ties, threshold: float | Array
) -> tuple[Array, Array, Array]:
    """Log-probabilities that the first wins, the second wins, and of a tie."""
    if ties == "davidson":
        alike = jnp.broadcast_to(threshold, d.shape).astype(d.dtype)
        shares = jax.nn.log_softmax(jnp.stack([d / 2, -d / 2, alike]), axis=0)
        return shares[0], shares[1], shares[2]
    lead = jnp.asarray(threshold if ties == "rao_kupper" else 0.0, d.dtype)
    first, second = jax.nn.log_sigmoid(d - lead), jax.nn.log_sigmoid(-d - lead)
    if ties == "half":
        return first, second, jnp.zeros_like(d)
    return first, second, jnp.log(jnp.expm1(2 * lead)) + first + second


class ComparedScores(NamedTuple):
    """What is known of the `K` replies to each prompt, as weights over ordered pairs.

    `wins[b, i, j]` is how much reply `i` was preferred to `j`: shares of annotators, 0 where the
    two were not compared. A plain pair is `wins[b, 0, 1] = 1`; one that 3 of 4 preferred has 0.25
    at `[b, 1, 0]` too. A tie of all is `ties = 1` both ways.
    """

    wins: Float[Array, "B K K"]
    ties: Float[Array, "B K K"]  # symmetric
    margin: Float[Array, "B K K"]  # of i over j: antisymmetric, so that P(i, j) + P(j, i) = 1


def comparison_loss(
    scores: Float[Array, "B K"],
    known: ComparedScores,
    beta: float | Float[Array, ""] = 1.0,
    centring: float = 0.0,
    ties: Ties = "half",
    threshold: float | Float[Array, ""] = 0.5,
) -> tuple[Mean, dict[str, Mean]]:
    """Bradley-Terry over every comparison of a prompt's replies, each prompt counting as one.

    All comparisons of one prompt stand in one row: spread over rows, the prompt's replies would be
    fitted as often as they occur (Ouyang et al., 2022). `centring` adds
    `eta (r_i + r_j)^2` per comparison, which alone makes the loss depend on the scores' offset
    (Eisenstein et al., 2023). `ties` and `threshold` as in `pair_loss`.

    Returns:
      The loss in nats per prompt that compares anything, and the metrics `accuracy` (equal scores
      are half right), `gap` (preferred minus other score) and `score`.
    """
    first, second = scores[:, :, None], scores[:, None, :]
    d = reward_gap(first, second, beta, known.margin)
    won, _, tied = _log_shares(d, ties, threshold)
    halves = known.wins + known.ties / 2  # a tie is counted from both sides
    weight = halves.sum(axis=(1, 2), keepdims=True)
    scale = jnp.where(weight > 0, 1 / jnp.where(weight > 0, weight, 1.0), 0.0)
    share, prompts = scale * halves, (weight > 0).sum().astype(jnp.float32)
    if ties == "half":
        total = _kept_sum(share, -won)
    else:
        total = _kept_sum(scale * known.wins, -won) + _kept_sum(scale * known.ties / 2, -tied)
    total = total + _kept_sum(share, centring * (first + second) ** 2)
    ahead = 0.5 * (1 + jnp.sign(first - second))
    compared = (share + share.swapaxes(1, 2)) > 0
    seen = compared.any(axis=2)
    return Mean(total, prompts), {
        "accuracy": Mean(_kept_sum(share, ahead), prompts),
        "gap": Mean(_kept_sum(share, first - second), prompts),
        "score": Mean(jnp.where(seen, scores, 0.0).sum(), seen.sum().astype(jnp.float32)),
    }


def _kept_sum(share: Array, value: Array) -> Array:
    return jnp.where(share > 0, share * value, 0.0).sum()


def plackett_luce_loss(
    scores: Float[Array, "B K"], present: Bool[Array, "B K"]
) -> Float[Array, "B"]:
    """`-log P(order)` of replies ranked best first (Luce, 1959; Plackett, 1975), in nats.

    The best is drawn with the softmax of all scores, the next from those left, and so on; with two
    replies this is Bradley-Terry. Absent replies must stand last.
    """
    low = jnp.finfo(scores.dtype).min
    kept = jnp.where(present, scores, low)
    left = jax.lax.cumlogsumexp(kept, axis=1, reverse=True)
    return jnp.where(present, left - scores, 0.0).sum(axis=1)

"""A margin between replies called helpful and unhelpful (Muffin: Wang et al., 2024)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.types import Mean

ScoreKind = Literal["base", "log"]
"""What a reply scores: the mean probability of its tokens, or their mean log-probability."""


def reply_scores(
    log_probs: Float[jax.Array, "*B T"], mask: Float[jax.Array, "*B T"], score: ScoreKind = "base"
) -> Float[jax.Array, "*B"]:
    """The mean over the tokens of each reply; 0 of one without a token.

    `log_probs` are natural logarithms of the probabilities of the tokens where `mask` is 1.
    """
    each = jnp.exp(log_probs) if score == "base" else log_probs
    total = jnp.where(mask > 0, each, 0.0).sum(axis=-1)
    return total / jnp.maximum(mask.sum(axis=-1), 1.0)


def contrastive_loss(
    scores: Float[jax.Array, "*B K"], wins: Float[jax.Array, "*B K K"], margin: float = 0.01
) -> Mean:
    """`max(0, margin - (s_i - s_j))` over the pairs with `wins[i, j] > 0`: i helpful, j not.

    A prompt's pairs are averaged; the count is of prompts that have any. All labels alike give 0.
    Of scores .5, .2, .4 with the first two helpful and a margin of .1 the pairs give 0 and .3, the
    loss .15. The published code also adds the margin for each pair of equal labels: a constant, of
    which there is no gradient.
    """
    gap = scores[..., :, None] - scores[..., None, :]
    pairs = (wins > 0).astype(scores.dtype)
    count = pairs.sum(axis=(-1, -2))
    lost = (pairs * jnp.maximum(0.0, margin - gap)).sum(axis=(-1, -2))
    each = lost / jnp.maximum(count, 1.0)
    return Mean(each.sum(), (count > 0).sum().astype(jnp.float32))


def helpful_pairs(helpful: Int[jax.Array, "*B K"]) -> Float[jax.Array, "*B K K"]:
    """`wins` of labels: 1 helpful, 0 unhelpful, anything else (-1) in no pair."""
    good, bad = helpful == 1, helpful == 0
    return (good[..., :, None] & bad[..., None, :]).astype(jnp.float32)

"""The log-probabilities of whole replies under a policy, a prompt with its replies a row."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from hen_jax.core.types import Array, Tree
from hen_jax.data.preference_batches import Weighed, WeighedBounds
from hen_jax.models.decoder import merge
from hen_jax.models.layers import Gate
from hen_jax.objectives.tokens import score_tokens


class ReplyScoring(NamedTuple):
    """What the program that scores replies is made for."""

    graphdef: nnx.GraphDef
    chunk: int = 64  # positions per row that meet the vocabulary at a time
    tail: float = 1.0  # what a token past the end of the other reply counts for (LD-DPO)


def reply_sums(
    scoring: ReplyScoring,
    bounds: WeighedBounds,
    rows: Weighed,
    *params: Tree,
    gate: Gate | None = None,
) -> Float[Array, "B K J"]:
    """The log-probability of each reply in nats, summed over its tokens by their weights.

    `params` together are the leaves of the decoder. J is 1 unless `scoring.tail` is not: then entry
    `[b, i, j]` is reply `i` as it counts against reply `j`, and `[b, i, i]` the plain sum. `gate`
    chooses among the adapters of several experts, row by row.
    """
    batch = rows.batch
    model = merge(scoring.graphdef, *params)
    hidden = model.hidden(batch.tokens, batch.positions, batch.segments, bounds.reach, gate)
    scores = score_tokens(
        model.scorer(), hidden, batch.targets, batch.mask, bounds.trained, scoring.chunk
    )
    own = own_positions(rows, bounds.replies)
    each = jnp.where(own, (scores.log_probs * rows.weights)[:, None], 0.0)
    if scoring.tail == 1:
        return each.sum(axis=2)[:, :, None]
    place = jnp.cumsum(own & (batch.mask > 0)[:, None], axis=2)
    ends = place[:, :, -1]
    within = place[:, :, None] <= jnp.minimum(ends[:, :, None], ends[:, None])[..., None]
    return (each[:, :, None] * jnp.where(within, 1.0, scoring.tail)).sum(axis=3)


def whole(sums: Float[Array, "B K J"]) -> Float[Array, "B K"]:
    """Of `reply_sums`, those that do not depend on another reply."""
    return sums[:, :, 0] if sums.shape[2] == 1 else jnp.diagonal(sums, axis1=1, axis2=2)


def own_positions(rows: Weighed, replies: int) -> Array:
    """`[B, K, T]` bool: which positions are of which reply."""
    return rows.batch.segments[:, None] == jnp.arange(1, replies + 1)[None, :, None]


def reply_lengths(rows: Weighed, replies: int) -> Float[Array, "B K"]:
    """`n` of each reply: the sum of what its tokens count for."""
    return jnp.where(own_positions(rows, replies), rows.weights[:, None], 0.0).sum(axis=2)

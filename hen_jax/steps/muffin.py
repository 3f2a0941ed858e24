"""Muffin's step: helpful candidates above those that are not, and the reply that was given.

After Wang et al. (2024, arXiv 2401.05928): a margin between mean token probabilities, beside the
cross-entropy of the given reply. Each prompt counts as one, however many candidates it has.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from hen_jax.core.ranges import NotNegative, check_ranges
from hen_jax.core.types import Mean, Tree
from hen_jax.data.preference_batches import PreferenceBatch, WeighedBounds
from hen_jax.models.decoder import merge
from hen_jax.objectives.contrastive import ScoreKind, contrastive_loss, reply_scores
from hen_jax.objectives.tokens import score_tokens
from hen_jax.steps.reply_scores import own_positions
from hen_jax.steps.update import Loss, Metrics


@dataclasses.dataclass(frozen=True)
class MuffinConfig:
    """The objective; the defaults are the published values."""

    margin: NotNegative = 0.01  # between mean token probabilities
    contrastive: NotNegative = 1.0  # weight of the margin
    gold: NotNegative = 1.0  # weight of the given reply's cross-entropy, nats a token
    score: ScoreKind = "base"  # mean probability of a reply's tokens, or "log": of their logarithms

    def __post_init__(self):
        check_ranges(self)


def muffin_loss(
    graphdef: nnx.GraphDef, bounds: WeighedBounds, config: MuffinConfig, chunk: int = 64
) -> Loss:
    """The loss per prompt; `batch.wins` says who is helpful, `batch.marks` which reply was given.

    Where all candidates are alike the margin gives 0 and only the given reply trains.
    """

    def loss(params: Tree, frozen: Tree, batch: PreferenceBatch) -> tuple[Mean, Metrics]:
        rows = batch.rows.batch
        model = merge(graphdef, params, frozen)
        hidden = model.hidden(rows.tokens, rows.positions, rows.segments, bounds.reach)
        scored = score_tokens(
            model.scorer(), hidden, rows.targets, rows.mask, bounds.trained, chunk
        )
        own = own_positions(batch.rows, bounds.replies) & (rows.mask > 0)[:, None]
        mask = own.astype(jnp.float32)  # [B, K, T]
        log_probs = jnp.broadcast_to(scored.log_probs[:, None], mask.shape)
        scores = reply_scores(log_probs, mask, config.score)
        margin = contrastive_loss(scores, batch.wins, config.margin)
        given = batch.marks[..., 0] > 0  # [B, K]
        nll = -reply_scores(log_probs, mask, "log")
        gold = jnp.where(given, nll, 0.0).sum()
        prompts = given.any(axis=1).sum().astype(jnp.float32)
        tokens = jnp.where(given, mask.sum(axis=2), 0.0)
        gap = scores[:, :, None] - scores[:, None]
        pairs = batch.wins.sum()
        metrics = {
            "margin_loss": margin,
            "gold_nll": Mean(jnp.where(given, nll * tokens, 0.0).sum(), tokens.sum()),
            "gap": Mean((batch.wins * gap).sum(), pairs),
            "apart": Mean((batch.wins * (gap >= config.margin)).sum(), pairs),
        }
        total = config.contrastive * margin.total + config.gold * gold
        return Mean(total, prompts), metrics

    return loss

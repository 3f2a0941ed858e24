"""Reward models: the loss of compared replies under a scalar head."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Mean, RowLimits, Tree
from hen_jax.data.comparisons import ComparedBatch
from hen_jax.models.decoder import merge
from hen_jax.models.heads import document_scores
from hen_jax.objectives.preference import ComparedScores, Ties, comparison_loss
from hen_jax.steps.update import Loss, Metrics


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """The objective of a reward model; scores are differences of these units over `beta`."""

    beta: float = 1.0  # temperature: P(i over j) = sigmoid((r_i - r_j) / beta - margin)
    margin: float = 0.0  # of the better reply, beside each pair's own; in the sigmoid's units
    centring: float = 0.01  # eta of eta (r_i + r_j)^2; 0 leaves the offset of scores free
    ties: Ties = "half"  # half a win for each, or an outcome of its own by one of two models
    tie_threshold: float = 0.5  # log theta of rao_kupper, log nu of davidson; "half" has none

    def __post_init__(self):
        lowest = {"beta": 1e-6, "margin": 0.0, "centring": 0.0, "tie_threshold": 1e-6}
        for name, low in lowest.items():
            value = dataclasses.asdict(self)[name]
            if not low <= value <= 1e6:
                raise InputError(f"{name} is {value}; allowed: a number from {low:g} to 1e6")


def reward_loss(
    graphdef: nnx.GraphDef,
    replies: int,
    config: RewardConfig = RewardConfig(),
    reach: RowLimits | None = None,
) -> Loss:
    """Bradley-Terry over the replies to each prompt (the reward model of HEN), in nats a prompt.

    The batch is a `ComparedBatch` of at most `replies` replies a row; the decoder has a score
    head. `reach` as in `Decoder.hidden`; a row beyond it gives NaN. With equal scores and no
    margin the loss is ln 2, whatever the comparisons.
    """

    def loss(params: Tree, frozen: Tree, batch: ComparedBatch) -> tuple[Mean, Metrics]:
        scores = row_of_scores(graphdef, replies, params, frozen, batch, reach)
        better = jnp.sign(batch.wins - batch.wins.swapaxes(1, 2))
        known = ComparedScores(batch.wins, batch.ties, batch.margin + config.margin * better)
        return comparison_loss(
            scores, known, config.beta, config.centring, config.ties, config.tie_threshold
        )

    return loss


def row_of_scores(
    graphdef: nnx.GraphDef,
    replies: int,
    params: Tree,
    frozen: Tree,
    batch: ComparedBatch,
    reach: RowLimits | None = None,
) -> Float[Array, "B K"]:
    """The score of each reply, in float32, read off the last token of its document."""
    model = merge(graphdef, params, frozen)
    rows = batch.batch
    hidden = model.hidden(rows.tokens, rows.positions, rows.segments, reach)
    assert model.score is not None, "the decoder needs config.score_head"
    return document_scores(model.score(hidden, rows.segments), rows.segments, replies)

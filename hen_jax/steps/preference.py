"""Direct preference optimisation: the losses of replies under a policy and its reference.

What depends on a whole batch, z0 of KTO and the tokens that a cross-entropy is divided by, is
computed before the batch is divided into microbatches, and stands in its rows from then on.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from hen_jax.core.types import Array, Mean, Tree
from hen_jax.data.preference_batches import PreferenceBatch, PreferenceBounds, Weighed
from hen_jax.objectives.direct import Side, kto_baseline, kto_losses
from hen_jax.steps.preference_config import PreferenceConfig
from hen_jax.steps.reply_scores import ReplyScoring, reply_lengths, reply_sums, whole
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Metrics, Step

BASE, REFERENCE = "base", "reference"
"""Where the frozen tree of a run that keeps its reference holds the two."""


def with_reference(needed: bool, params: Tree, frozen: Tree) -> Tree:
    """What does not train, with the policy at the start beside it where it is the reference."""
    return {BASE: frozen, REFERENCE: params} if needed else frozen


class Plan(NamedTuple):
    """What a preference step is compiled for."""

    graphdef: nnx.GraphDef
    bounds: PreferenceBounds
    config: PreferenceConfig
    chunk: int = 64  # positions per row that meet the vocabulary at a time

    @property
    def scoring(self) -> ReplyScoring:
        """How replies are scored."""
        return ReplyScoring(self.graphdef, self.chunk, self.config.values.tail)


Complete = Callable[[Tree, Tree, PreferenceBatch], PreferenceBatch]
"""`complete(params, frozen, batch)`: the batch with what depends on all of its rows."""


def preference_loss(plan: Plan) -> Loss:
    """The objective over pairs, or marked replies, of a batch that `completed` has seen.

    Each prompt counts as one however many of its replies are compared; under KTO each mark does.
    `frozen` is `{"base", "reference"}` where the reference is kept, else what the policy does not
    train.
    """
    config, bounds = plan.config, plan.bounds.rows

    def loss(params: Tree, frozen: Tree, batch: PreferenceBatch) -> tuple[Mean, Metrics]:
        base, reference = divided(config, frozen)
        sums, kept = reply_sums(plan.scoring, bounds, batch.rows, params, base), batch.reference
        if reference is not None:
            kept = reply_sums(plan.scoring, bounds, batch.rows, reference, base)
        kept = jax.lax.stop_gradient(jnp.zeros_like(sums) if kept is None else kept)
        lengths = reply_lengths(batch.rows, bounds.replies)
        terms = kto_terms if config.objective.loss is None else pair_terms
        mean, metrics = terms(sums, kept, lengths, batch, config)
        metrics |= {config.loss: mean}
        if config.values.sft:
            nll, total = _cross_entropy(whole(sums), lengths, batch, config)
            metrics |= {"nll": nll}
            mean = Mean(mean.total + config.values.sft * total, mean.count)
        return mean, metrics

    return loss


def pair_terms(
    sums: Float[Array, "B K J"],
    kept: Float[Array, "B K J"],
    lengths: Float[Array, "B K"],
    batch: PreferenceBatch,
    config: PreferenceConfig,
) -> tuple[Mean, Metrics]:
    """An objective of pairs, per prompt that compares anything, and its metrics."""
    objective, values = config.objective, config.values
    assert objective.loss is not None
    chosen = _sides(sums, kept, lengths)
    rejected = Side(*(x.swapaxes(1, 2) for x in chosen))
    share, prompts = _shares(batch.wins)

    def mean(x: Array) -> Mean:
        return Mean(_kept_sum(share, x), prompts)

    rewards = [objective.reward(side, values) for side in (chosen, rejected)]
    metrics = {
        "accuracy": mean(0.5 * (1 + jnp.sign(rewards[0] - rewards[1]))),
        "reward/margin": mean(rewards[0] - rewards[1]),
        "reward/chosen": mean(rewards[0]),
        "reward/rejected": mean(rewards[1]),
        "log_prob/chosen": mean(chosen.policy),
        "log_prob/rejected": mean(rejected.policy),
    }
    if objective.start is not None:
        metrics |= {"ratio/chosen": mean(chosen.ratio), "ratio/rejected": mean(rejected.ratio)}
    return mean(objective.loss(chosen, rejected, values)), metrics


def kto_terms(
    sums: Float[Array, "B K J"],
    kept: Float[Array, "B K J"],
    lengths: Float[Array, "B K"],
    batch: PreferenceBatch,
    config: PreferenceConfig,
) -> tuple[Mean, Metrics]:
    """KTO, per mark, and its metrics; a reply is right that lies on its side of z0."""
    del lengths
    assert batch.baseline is not None, "complete the batch first"
    values, count = config.values, batch.marks.sum()
    log_probs, ratio, z0 = whole(sums), whole(sums - kept), batch.baseline[:, None]
    sides = dict(zip(("wanted", "unwanted"), jnp.moveaxis(batch.marks, 2, 0), strict=True))
    losses = dict(zip(sides, kto_losses(ratio, z0, values), strict=True))
    ahead = 0.5 * (1 + jnp.sign(ratio - z0))
    right = {"wanted": ahead, "unwanted": 1 - ahead}
    lost = sum(_kept_sum(marks, losses[side]) for side, marks in sides.items())
    metrics = {
        "accuracy": Mean(sum(_kept_sum(m, right[side]) for side, m in sides.items()), count),
        "weight": Mean(
            values.desirable * sides["wanted"].sum() + values.undesirable * sides["unwanted"].sum(),
            count,
        ),
        "z0": Mean(batch.baseline.sum(), jnp.asarray(len(batch.baseline), jnp.float32)),
    }
    for side, marks in sides.items():
        metrics |= {
            f"reward/{side}": Mean(_kept_sum(marks, values.beta * ratio), marks.sum()),
            f"log_prob/{side}": Mean(_kept_sum(marks, log_probs), marks.sum()),
            f"ratio/{side}": Mean(_kept_sum(marks, ratio), marks.sum()),
        }
    return Mean(lost, count), metrics


def completed(plan: Plan, microbatches: int = 1) -> Complete:
    """The function that completes a batch before it is divided."""
    config = plan.config

    def complete(params: Tree, frozen: Tree, batch: PreferenceBatch) -> PreferenceBatch:
        rows = len(batch.wins)
        if batch.mismatched is not None:
            z0 = _baseline(plan, params, frozen, batch.mismatched, microbatches)
            batch = batch._replace(baseline=jnp.full(rows, z0), mismatched=None)
        if config.values.sft:
            wanted = wanted_shares(batch, config)
            items = batch.marks.sum() if config.loss == "kto" else _shares(batch.wins)[1]
            tokens = _kept_sum(wanted, reply_lengths(batch.rows, plan.bounds.rows.replies))
            batch = batch._replace(scale=jnp.full(rows, items / jnp.maximum(tokens, 1.0)))
        return batch

    return complete


def preference_step(update: Step, complete: Complete) -> Step:
    """`update` of a batch that was completed first."""

    def step(state: State, frozen: Tree, batch: PreferenceBatch) -> tuple[State, Metrics]:
        return update(state, frozen, complete(state.params, frozen, batch))

    return step


def preference_score(loss: Loss, complete: Complete) -> Loss:
    """What an evaluation sums: `loss` of a batch that was completed first."""

    def score(params: Tree, frozen: Tree, batch: PreferenceBatch) -> tuple[Mean, Metrics]:
        return loss(params, frozen, complete(params, frozen, batch))

    return score


def implicit_rewards(
    sums: Float[Array, "B K J"],
    kept: Float[Array, "B K J"] | None,
    lengths: Float[Array, "B K"],
    config: PreferenceConfig,
) -> Float[Array, "B K"]:
    """What the objective orders replies by: `beta h` under DPO."""
    log_probs = whole(sums)
    reference = jnp.zeros_like(log_probs) if kept is None else whole(kept)
    return config.objective.reward(Side(log_probs, reference, lengths), config.values)


def wanted_shares(batch: PreferenceBatch, config: PreferenceConfig) -> Float[Array, "B K"]:
    """How much of each reply is a chosen one: shares of its prompt, or marks."""
    return batch.marks[..., 0] if config.loss == "kto" else _shares(batch.wins)[0].sum(axis=2)


def divided(config: PreferenceConfig, frozen: Tree) -> tuple[Tree, Tree | None]:
    """What the policy does not train, and the reference where it is kept."""
    if config.keeps_reference:
        return frozen[BASE], frozen[REFERENCE]
    return frozen, None


def _cross_entropy(
    log_probs: Float[Array, "B K"],
    lengths: Float[Array, "B K"],
    batch: PreferenceBatch,
    config: PreferenceConfig,
) -> tuple[Mean, Array]:
    """Of the chosen replies' tokens in the whole batch: the mean, and what it adds to a total."""
    assert batch.scale is not None, "complete the batch first"
    wanted = wanted_shares(batch, config)
    each = jnp.where(wanted > 0, -wanted * log_probs, 0.0).sum(axis=1)
    return Mean(each.sum(), _kept_sum(wanted, lengths)), (each * batch.scale).sum()


def _baseline(
    plan: Plan, params: Tree, frozen: Tree, rows: Weighed, microbatches: int
) -> Float[Array, ""]:
    """z0 over all rows of all devices, a microbatch at a time, without a gradient."""
    base, reference = divided(plan.config, frozen)
    bounds = plan.bounds.mismatched
    assert bounds is not None

    def one(part: Weighed) -> Mean:
        sums, kept = (
            reply_sums(plan.scoring, bounds, part, leaves, base) for leaves in (params, reference)
        )
        there = (reply_lengths(part, bounds.replies) > 0).astype(jnp.float32)
        return Mean(_kept_sum(there, whole(sums - kept)), there.sum())

    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), rows)
    each = jax.lax.map(one, parts)
    return jax.lax.stop_gradient(kto_baseline(each.total.sum(), each.count.sum()))


def _sides(sums: Array, kept: Array, lengths: Array) -> Side:
    """Each reply against each other, `[B, K, K]`."""
    shape = (*sums.shape[:2], sums.shape[1])
    return Side(*(jnp.broadcast_to(x, shape) for x in (sums, kept, lengths[:, :, None])))


def _shares(wins: Float[Array, "B K K"]) -> tuple[Float[Array, "B K K"], Float[Array, ""]]:
    """What each pair counts for, 1 in all for a prompt that compares anything; the prompts."""
    weight = wins.sum(axis=(1, 2), keepdims=True)
    share = jnp.where(weight > 0, wins / jnp.where(weight > 0, weight, 1.0), 0.0)
    return share, (weight > 0).sum().astype(jnp.float32)


def _kept_sum(share: Array, value: Array) -> Array:
    return jnp.where(share > 0, share * value, 0.0).sum()

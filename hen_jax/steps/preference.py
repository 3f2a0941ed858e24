"""Direct preference optimisation: the losses of replies under a policy and its reference.

What depends on a whole batch, z0 of KTO and the tokens that a cross-entropy is divided by, is
computed before the batch is divided into microbatches, and stands in its rows from then on.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from hen_jax.core.types import Array, Mean, Tree
from hen_jax.data.preference_batches import PreferenceBatch, Weighed
from hen_jax.objectives.direct import Side, kto_baseline, kto_losses
from hen_jax.steps.experts import loss_of
from hen_jax.steps.preference_config import PreferenceConfig
from hen_jax.steps.preference_plan import BASE, REFERENCE, PreferencePlan
from hen_jax.steps.reply_scores import reply_lengths, whole
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Metrics, Step

Complete = Callable[[Tree, Tree, PreferenceBatch], PreferenceBatch]
"""`complete(params, frozen, batch)`: the batch with what depends on all of its rows."""


def preference_loss(plan: PreferencePlan) -> Loss:
    """The objective over pairs, or marked replies, of a batch that `completed` has seen.

    Each prompt counts as one however many of its replies are compared; under KTO each mark does.
    `frozen` is `{"base", "reference"}` where the reference is kept, else what the policy does not
    train. Of several experts the metrics are each one's own, `dpo_NAME`, and `loss_NAME` is what
    its update divides by.
    """
    config, bounds = plan.config, plan.bounds.rows

    def loss(params: Tree, frozen: Tree, batch: PreferenceBatch) -> tuple[Mean, Metrics]:
        base, reference = divided(config, frozen)
        sums, kept = plan.sums(bounds, batch.rows, params, base), batch.reference
        if reference is not None:
            kept = plan.sums(bounds, batch.rows, reference, base)
        kept = jax.lax.stop_gradient(jnp.zeros_like(sums) if kept is None else kept)
        if not plan.experts:
            return objective_terms(sums, kept, batch, plan)
        owners, metrics = plan.owners(batch.rows), {}
        for index, name in enumerate(plan.experts):
            own = _rows_of(batch, owners[:, index])
            mean, said = objective_terms(sums, kept, own, plan)
            metrics |= {f"{key}_{name}": one for key, one in said.items()} | {loss_of(name): mean}
        each = [metrics[loss_of(name)] for name in plan.experts]
        return Mean(sum(one.total for one in each), sum(one.count for one in each)), metrics

    return loss


def _rows_of(batch: PreferenceBatch, own: Float[Array, "B"]) -> PreferenceBatch:
    """The batch in which the rows where `own` is 0 compare and mark nothing."""
    own = own[:, None, None]
    return batch._replace(wins=batch.wins * own, marks=batch.marks * own)


def objective_terms(
    sums: Float[Array, "B K J"],
    kept: Float[Array, "B K J"],
    batch: PreferenceBatch,
    plan: PreferencePlan,
) -> tuple[Mean, Metrics]:
    """The objective from log-probabilities of policy and reference, with the cross-entropy of what
    was chosen where it is asked for."""
    config, lengths = plan.config, reply_lengths(batch.rows, plan.bounds.rows.replies)
    terms = kto_terms if config.objective.loss is None else pair_terms
    mean, metrics = terms(sums, kept, lengths, batch, config)
    metrics |= {config.loss: mean}
    if config.values.sft:
        nll, total = _cross_entropy(whole(sums), lengths, batch, config)
        metrics |= {"nll": nll}
        mean = Mean(mean.total + config.values.sft * total, mean.count)
    return mean, metrics


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
    rows = (batch.marks.sum(axis=(1, 2)) > 0).astype(jnp.float32)
    metrics = {
        "accuracy": Mean(sum(_kept_sum(m, right[side]) for side, m in sides.items()), count),
        "weight": Mean(
            values.desirable * sides["wanted"].sum() + values.undesirable * sides["unwanted"].sum(),
            count,
        ),
        "z0": Mean(batch.baseline @ rows, rows.sum()),
    }
    for side, marks in sides.items():
        metrics |= {
            f"reward/{side}": Mean(_kept_sum(marks, values.beta * ratio), marks.sum()),
            f"log_prob/{side}": Mean(_kept_sum(marks, log_probs), marks.sum()),
            f"ratio/{side}": Mean(_kept_sum(marks, ratio), marks.sum()),
        }
    return Mean(lost, count), metrics


def completed(plan: PreferencePlan, microbatches: int = 1) -> Complete:
    """The function that completes a batch before it is divided; of several experts each row has
    what belongs to its own."""
    config, replies = plan.config, plan.bounds.rows.replies

    def complete(params: Tree, frozen: Tree, batch: PreferenceBatch) -> PreferenceBatch:
        owners = plan.owners(batch.rows)
        if batch.mismatched is not None:
            z0 = _baselines(plan, params, frozen, batch.mismatched, microbatches)
            batch = batch._replace(baseline=owners @ z0, mismatched=None)
        if config.values.sft:
            lengths = reply_lengths(batch.rows, replies)
            scales = [_scale(_rows_of(batch, own), lengths, config) for own in owners.T]
            batch = batch._replace(scale=owners @ jnp.stack(scales))
        return batch

    return complete


def _scale(
    batch: PreferenceBatch, lengths: Float[Array, "B K"], config: PreferenceConfig
) -> Float[Array, ""]:
    """Items per token of what was chosen."""
    wanted = wanted_shares(batch, config)
    items = batch.marks.sum() if config.loss == "kto" else _shares(batch.wins)[1]
    return items / jnp.maximum(_kept_sum(wanted, lengths), 1.0)


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


def _baselines(
    plan: PreferencePlan, params: Tree, frozen: Tree, rows: Weighed, microbatches: int
) -> Float[Array, "G"]:
    """z0 of each owner of rows, over all its rows of all devices, a microbatch at a time, without
    a gradient."""
    base, reference = divided(plan.config, frozen)
    bounds = plan.bounds.mismatched
    assert bounds is not None

    def one(part: Weighed) -> Mean:
        sums, kept = (plan.sums(bounds, part, leaves, base) for leaves in (params, reference))
        there = (reply_lengths(part, bounds.replies) > 0).astype(jnp.float32)
        each = jnp.where(there > 0, whole(sums - kept), 0.0).sum(axis=1)
        owners = plan.owners(part)
        return Mean(each @ owners, there.sum(axis=1) @ owners)

    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), rows)
    each = jax.lax.map(one, parts)
    return jax.lax.stop_gradient(kto_baseline(each.total.sum(axis=0), each.count.sum(axis=0)))


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

"""What a rollout teaches: rewards become advantages over the whole batch; and what to watch."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.types import Array, Batch, Mean
from hen_jax.data.rollouts import Rollout
from hen_jax.models.heads import last_tokens
from hen_jax.objectives.advantages import (
    GroupAdvantages,
    Traced,
    group_advantages,
    traced_advantages,
)
from hen_jax.objectives.policy import at_positions, summed_replies
from hen_jax.steps.policy_config import PolicyConfig
from hen_jax.steps.update import Metrics


class Before(NamedTuple):
    """What is known of a rollout before its first update; zeros where nothing needs it."""

    old: Float[Array, "B T"]
    reference: Float[Array, "B T"]
    values: Float[Array, "B T"]


class Lesson(NamedTuple):
    """Rows of one or more groups, ready for an update."""

    batch: Batch  # its mask is what trains
    sampler: Float[Array, "B T"]
    old: Float[Array, "B T"]
    reference: Float[Array, "B T"]
    values: Float[Array, "B T"]
    returns: Float[Array, "B T"]
    advantages: Float[Array, "B T"]


def lesson_of(
    rollout: Rollout, before: Before, config: PolicyConfig, coefficient: Float[Array, ""]
) -> tuple[Lesson, Metrics]:
    """Rewards become advantages, over the whole batch; and what there is to watch."""
    batch, mask = rollout.batch, rollout.batch.mask
    segments, G = batch.segments, rollout.rewards.shape[1]
    counts = rollout.valid & (summed_replies(mask, segments, G) > 0)
    plain = group_advantages(rollout.rewards, counts, config.advantage)
    learnt = mask * at_positions(_trains(rollout, counts, plain, config), segments)
    penalty = jnp.zeros_like(mask)
    if config.kl.where == "reward":
        penalty = coefficient * (before.old - before.reference) * mask
    watched = rollout_metrics(rollout, counts) | {"zero_spread": _flat_share(plain)}
    if config.valued:
        advantages, returns = _traced(rollout, before, config, penalty, learnt)
        watched["explained_variance"] = explained(before.values, returns, learnt)
    else:
        earned = rollout.rewards - summed_replies(penalty, segments, G)
        found = group_advantages(earned, counts, config.advantage)
        advantages, returns = at_positions(found.advantages, segments), jnp.zeros_like(mask)
    return Lesson(
        batch._replace(mask=learnt),
        rollout.sampler,
        before.old,
        before.reference,
        before.values,
        returns,
        advantages * learnt,
    ), watched


def _trains(
    rollout: Rollout, counts: Array, groups: GroupAdvantages, config: PolicyConfig
) -> Float[Array, "B G"]:
    """1 for the replies that an update learns from."""
    trains = counts
    if config.flat_groups == "mask" and not config.valued:
        trains &= ~groups.flat[:, None]
    if config.cut_replies == "mask":
        trains &= ~rollout.truncated
    return trains.astype(jnp.float32)


def _traced(
    rollout: Rollout, before: Before, config: PolicyConfig, penalty: Array, learnt: Array
) -> Traced:
    """GAE over the rewards of tokens; a reply that was cut goes on, unless the limit ends it."""
    mask, segments = rollout.batch.mask, rollout.batch.segments
    rewards = _token_rewards(rollout.rewards, mask, segments) - penalty
    goes_on = rollout.truncated & (config.cut_replies == "keep")
    cut = last_tokens(segments) & (at_positions(goes_on.astype(jnp.float32), segments) > 0)
    return traced_advantages(rewards, before.values, learnt, segments, cut, config.advantage)


def _flat_share(groups: GroupAdvantages) -> Mean:
    flat, counted = (x.sum().astype(jnp.float32) for x in (groups.flat, groups.counted))
    return Mean(flat, counted)


def _token_rewards(
    rewards: Float[Array, "B G"], mask: Float[Array, "B T"], segments: Int[Array, "B T"]
) -> Float[Array, "B T"]:
    """A reply's reward at its last token that the policy drew."""
    T, G = mask.shape[1], rewards.shape[1]
    at = jnp.where(mask > 0, jnp.arange(1, T + 1), 0)
    own = segments[:, None] == jnp.arange(1, G + 1)[None, :, None]
    last = jnp.where(own, at[:, None], 0).max(axis=2)  # [B, G], 0 where nothing was drawn
    ends = (at > 0) & (at == at_positions(last.astype(jnp.float32), segments))
    return jnp.where(ends, at_positions(rewards, segments), 0.0)


def explained(values: Array, returns: Array, mask: Array) -> Mean:
    """`1 - var(returns - values) / var(returns)`: 1 is a perfect value model, 0 a constant."""

    def variance(x: Array) -> Array:
        n = jnp.maximum(mask.sum(), 1.0)
        mean = (x * mask).sum() / n
        return (mask * (x - mean) ** 2).sum() / n

    spread = variance(returns)
    found = jnp.where(spread > 0, 1 - variance(returns - values) / jnp.maximum(spread, 1e-12), 0.0)
    return Mean(found, jnp.ones((), jnp.float32))


def rollout_metrics(rollout: Rollout, counts: Array) -> Metrics:
    """Rewards, length in tokens, and the shares of replies cut off, repeating, or not judged."""
    G = rollout.rewards.shape[1]
    lengths = summed_replies(rollout.batch.mask, rollout.batch.segments, G)
    drawn = (lengths > 0).astype(jnp.float32)
    valid, n = counts.astype(jnp.float32), drawn.sum()
    mean = (rollout.rewards * valid).sum() / jnp.maximum(valid.sum(), 1.0)
    squares = (valid * (rollout.rewards - mean) ** 2).sum()
    return {
        "reward": Mean((rollout.rewards * valid).sum(), valid.sum()),
        "reward_variance": Mean(squares, valid.sum()),
        "reply_tokens": Mean(lengths.sum(), n),
        "truncated": Mean((rollout.truncated * drawn).sum(), n),
        "repeated": Mean((rollout.repeated * drawn).sum(), n),
        "not_judged": Mean(n - valid.sum(), n),
    }


def part_metrics(rollout: Rollout, names: tuple[str | None, ...]) -> Metrics:
    """The mean of each reward before its weight, over the replies that it judged, and the spread.

    A name that is None is left out.
    """
    there = jnp.isfinite(rollout.parts)
    counts = there.sum(axis=(0, 1)).astype(jnp.float32)
    sums = jnp.where(there, rollout.parts, 0.0).sum(axis=(0, 1))
    off = jnp.where(there, rollout.parts - sums / jnp.maximum(counts, 1.0), 0.0)
    spreads = jnp.sqrt((off**2).sum(axis=(0, 1)) / jnp.maximum(counts, 1.0))
    one = jnp.ones((), jnp.float32)
    shown = [(at, name) for at, name in enumerate(names) if name is not None]
    means = {f"reward/{name}": Mean(sums[at], counts[at]) for at, name in shown}
    return means | {f"spread/{name}": Mean(spreads[at], one) for at, name in shown}

"""Advantages: how much better a reply, or a token of it, was than expected.

Rewards of a group `[P, G]` are those of `G` replies to each of `P` prompts; `valid` says which
count. Values and rewards of tokens `[B, T]` lie in packed rows, as in `core.types.Batch`. All is
computed in float32 over the whole batch: over all devices and before microbatches are cut.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import NotNegative, UpToOne, check_ranges
from hen_jax.core.types import Array


@dataclasses.dataclass(frozen=True)
class AdvantageConfig:
    """Against what a reward is measured, and in which unit.

    `kind` "group" compares the replies to one prompt: with `baseline` "mean" and `spread` "group"
    it is GRPO, without a spread Dr.GRPO, with the spread of the batch the choice for noisy judges;
    `baseline` "leave_one_out" without a spread is RLOO. "gae" asks a value model instead (PPO).

    Raises:
      InputError: a number is out of its range, or leave-one-out is divided by a spread.
    """

    kind: Literal["group", "gae"] = "group"  # other replies to the prompt, or a value model
    baseline: Literal["mean", "leave_one_out"] = "mean"  # of a group, what is subtracted
    spread: Literal["group", "batch", "none"] = "group"  # standard deviation that divides
    ddof: Literal[0, 1] = 1  # the spread divides by G - ddof, as TRL and verl; 0: the population's
    floor: NotNegative = 1e-4  # added to the spread
    gamma: UpToOne = 1.0  # gae: discount of the next token's value
    trace: UpToOne = 0.95  # gae: lambda; 1 is reward minus value, small ones trust the values
    whiten: bool = True  # gae: to mean 0 and deviation 1 over all tokens that train

    def __post_init__(self):
        check_ranges(self)
        if self.baseline == "leave_one_out" and self.spread == "group":
            raise InputError(
                "advantage.baseline is 'leave_one_out', which is not divided by the spread of its "
                "group; give advantage.spread='none' (RLOO) or 'batch'"
            )


class GroupAdvantages(NamedTuple):
    """One number per reply, 0 where it is not valid."""

    advantages: Float[Array, "P G"]
    counted: Bool[Array, "P"]  # groups of two or more valid replies
    flat: Bool[Array, "P"]  # counted groups whose rewards are all the same: they teach nothing


FLAT = 1e-6
"""Rewards of a group that differ by no more than this share of the largest are the same."""


def group_advantages(
    rewards: Float[Array, "P G"], valid: Bool[Array, "P G"], config: AdvantageConfig
) -> GroupAdvantages:
    """`(reward - baseline) / (spread + floor)` of each reply among the replies to its prompt.

    The standard deviation is that of all the group's replies, in two passes: that of the others
    alone is 0 where all others agree, and rounding then makes advantages of thousands. Rewards
    `[.35] * 7 + [.95]` give 2.47 to the last, whatever the scale. Groups of equal rewards, and
    those of a single valid reply, give exactly 0.
    """
    n = valid.sum(axis=1, keepdims=True).astype(jnp.float32)
    mean = _two_pass_mean(rewards, valid, n)
    centred = jnp.where(valid, rewards - mean, 0.0)
    low = jnp.where(valid, rewards, jnp.inf).min(axis=1)
    high = jnp.where(valid, rewards, -jnp.inf).max(axis=1)
    largest = jnp.where(valid, jnp.abs(rewards), 0.0).max(axis=1)
    counted = valid.sum(axis=1) > 1
    flat = counted & (high - low <= FLAT * largest)
    if config.baseline == "leave_one_out":
        centred = centred * n / jnp.maximum(n - 1, 1)  # r - mean of others = (r - mean) n / (n - 1)
    found = centred / _spread(rewards, centred, valid, n, config)
    return GroupAdvantages(jnp.where((counted & ~flat)[:, None], found, 0.0), counted, flat)


def _two_pass_mean(x: Array, valid: Array, n: Array) -> Array:
    once = jnp.where(valid, x, 0.0).sum(axis=1, keepdims=True) / jnp.maximum(n, 1)
    rest = jnp.where(valid, x - once, 0.0).sum(axis=1, keepdims=True) / jnp.maximum(n, 1)
    return once + rest


def _spread(
    rewards: Array, centred: Array, valid: Array, n: Array, config: AdvantageConfig
) -> Array:
    if config.spread == "none":
        return jnp.ones_like(n)
    if config.spread == "group":
        squares = (centred**2).sum(axis=1, keepdims=True)
        return jnp.sqrt(squares / jnp.maximum(n - config.ddof, 1)) + config.floor
    everyone = jnp.where(valid, rewards, 0.0)
    mean = everyone.sum() / jnp.maximum(n.sum(), 1)
    squares = jnp.where(valid, (rewards - mean) ** 2, 0.0).sum()
    return jnp.sqrt(squares / jnp.maximum(n.sum() - config.ddof, 1)) + config.floor


class Traced(NamedTuple):
    """What a value model is taught, and what a policy is; 0 where `mask` is 0."""

    advantages: Float[Array, "B T"]
    returns: Float[Array, "B T"]  # advantages before whitening, plus values


def traced_advantages(
    rewards: Float[Array, "B T"],
    values: Float[Array, "B T"],
    mask: Float[Array, "B T"],
    segments: Int[Array, "B T"],
    cut: Bool[Array, "B T"],
    config: AdvantageConfig,
) -> Traced:
    """Generalised advantage estimation (Schulman et al., 2016) along each document of a row.

    Position `t` holds the state before its action, so `values[t]` is that of the position before
    the token it draws. After the last action of a document the next value is 0 where the reply
    ended by itself. Where it was cut off by its length nothing ended: `cut` marks the position
    after the last action, whose value is what may still come. Positions in between that the policy
    did not draw (another speaker's) are passed over, at no discount.

    With `trace = 1` and `gamma = 1` the returns of an ended reply are the rewards still to come.
    """

    def back(
        carry: tuple[Array, Array], at: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], Array]:
        (gained, following), (reward, value, acts, last, ends_cut) = carry, at
        gained, following = jnp.where(last, 0.0, gained), jnp.where(last, 0.0, following)
        following = jnp.where(ends_cut, value, following)
        delta = reward + config.gamma * following - value
        now = delta + config.gamma * config.trace * gained
        return (jnp.where(acts, now, gained), jnp.where(acts, value, following)), now

    last = segments != jnp.pad(segments[:, 1:], [(0, 0), (0, 1)])
    steps = jax.tree.map(jnp.transpose, (rewards, values, mask > 0, last, cut))
    nothing = jnp.zeros(rewards.shape[0], jnp.float32)
    _, found = jax.lax.scan(back, (nothing, nothing), steps, reverse=True)
    raw = jnp.where(mask > 0, found.T, 0.0)
    returns = jnp.where(mask > 0, raw + values, 0.0)
    return Traced(whitened(raw, mask) if config.whiten else raw, returns)


def whitened(x: Float[Array, "*B"], mask: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """`(x - mean) / std` over everything where `mask` is 1; 0 elsewhere, and where all is equal."""
    n = jnp.maximum(mask.sum(), 1.0)
    kept = jnp.where(mask > 0, x, 0.0)
    mean = kept.sum() / n
    centred = jnp.where(mask > 0, x - mean, 0.0)
    variance = (centred**2).sum() / n
    return centred * jax.lax.rsqrt(variance + 1e-8)

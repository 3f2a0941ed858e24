"""Policy gradients: one objective, of which PPO, GRPO and their kin are settings.

At each position `t` of a reply, with `ratio` the probability of its token now over that when it was
drawn, `A` the advantage and `w` the importance weight of another sampler (a constant):

    loss_t = -w surrogate(ratio, A) + kl_coefficient * estimator [* ratio] - entropy * H

and the positions' losses are aggregated. All log-probabilities are natural, in float32, and belong
to the temperature that the tokens were drawn at.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Natural, NotNegative, Positive, check_ranges
from hen_jax.core.types import Array, Mean

Estimator = Literal["k1", "k2", "k3"]


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """How advantages become a loss.

    `ratio` "sequence" is that of the whole reply, `exp(mean log-ratio)` (GSPO). `surrogate` "clip"
    is PPO's, with `clip_high` above `clip_low` DAPO's; "cispo" weights the log-probability by the
    ratio, capped and constant, so that no token loses its gradient; "plain" is REINFORCE.
    `aggregate` "token" is the mean over all tokens of the batch, "sequence" the mean over replies
    of their tokens' means (short replies weigh more per token), "constant" the sum over
    `constant` tokens per reply (Dr.GRPO).

    Raises:
      InputError: a number is out of its range, or the constant is missing.
    """

    ratio: Literal["token", "sequence"] = "token"  # of a token, or of the whole reply
    surrogate: Literal["clip", "cispo", "plain"] = "clip"  # what limits a step
    clip_low: NotNegative = 0.2  # clip: a ratio counts down to 1 - clip_low
    clip_high: NotNegative = 0.2  # clip: and up to 1 + clip_high
    dual_clip: NotNegative = 0.0  # clip: the largest ratio under a negative advantage; 0: any
    cap: Positive = 5.0  # cispo: the largest ratio
    aggregate: Literal["token", "sequence", "constant"] = "token"  # over what the loss is a mean
    constant: Natural = 0  # constant: tokens that a reply counts as; 0: the longest allowed
    entropy: NotNegative = 0.0  # coefficient of the entropy, which is raised
    importance_cap: NotNegative = 0.0  # weights of another sampler are cut there; 0: no weights

    def __post_init__(self):
        check_ranges(self)
        if self.dual_clip and self.dual_clip <= 1 + self.clip_high:
            raise InputError(
                f"objective.dual_clip is {self.dual_clip}; give 0 (none) or more than 1 + "
                f"clip_high = {1 + self.clip_high:g}"
            )


@dataclasses.dataclass(frozen=True)
class KlConfig:
    """What keeps the policy near the reference, which is what the run starts from.

    In the reward it is k1, per token, a constant to the gradient. In the loss the exact gradient
    comes from k3 or k1 times the ratio; k2 is exact while the ratio is 1; k3 alone is the gradient
    of the other direction, KL(reference, policy); k1 alone has no gradient but noise.

    Raises:
      InputError: a number is out of its range, or k1 stands in the loss without the ratio.
    """

    coefficient: NotNegative = 0.05  # beta
    where: Literal["reward", "loss"] = "loss"  # subtracted from rewards, or added to the loss
    estimator: Estimator = "k3"  # in the loss
    times_ratio: bool = True  # in the loss
    target: NotNegative = 0.0  # nats per reply that an adaptive coefficient steers to; 0: fixed
    horizon: Positive = 10.0  # updates in which an adaptive coefficient follows
    measure: bool = True  # the log tells KL also where the coefficient is 0, at a forward pass

    def __post_init__(self):
        check_ranges(self)
        if self.where == "loss" and self.estimator == "k1" and not self.times_ratio:
            raise InputError(
                "kl.estimator is 'k1' in the loss, whose gradient does not contain the reference; "
                "give kl.times_ratio=True, kl.estimator='k3' or kl.where='reward'"
            )
        if self.target and not self.coefficient:
            raise InputError("kl.target steers kl.coefficient, which is 0; give it a start")

    @property
    def needed(self) -> bool:
        """Whether the reference must be computed."""
        return self.measure or self.coefficient > 0


class Tokens(NamedTuple):
    """What the objective reads at each position; only `now` and `entropy` have a gradient."""

    now: Float[Array, "B T"]  # log-probability under the parameters that train
    old: Float[Array, "B T"]  # under those that the update began with
    reference: Float[Array, "B T"]
    sampler: Float[Array, "B T"]  # as the sampler said when it drew
    entropy: Float[Array, "B T"]  # of the distribution the token was drawn from
    advantages: Float[Array, "B T"]
    mask: Float[Array, "B T"]  # 1 where a token of the policy trains
    segments: Int[Array, "B T"]


CLAMP = 20.0
"""k3 grows as `exp(reference - now)`: log-ratios beyond this are cut, and counted."""


def kl_estimate(
    now: Float[Array, "*B"], reference: Float[Array, "*B"], estimator: Estimator
) -> Float[Array, "*B"]:
    """Schulman's estimators of KL(now, reference) from one sample of `now`, in nats.

    With `d = log now/reference`: k1 is `d`, k2 `d^2 / 2`, k3 `exp(-d) - 1 + d`, which is never
    negative. k1 and k3 have the mean KL.
    """
    d = now - reference
    if estimator == "k1":
        return d
    if estimator == "k2":
        return 0.5 * d**2
    d = jnp.clip(d, -CLAMP, CLAMP)
    return jnp.expm1(-d) + d


def log_ratios(tokens: Tokens, config: ObjectiveConfig, replies: int) -> Float[Array, "B T"]:
    """`now - old` of each token, or the mean of its reply at each of the reply's tokens."""
    each = (tokens.now - tokens.old) * tokens.mask
    if config.ratio == "token":
        return each
    sums, counts = (summed_replies(x, tokens.segments, replies) for x in (each, tokens.mask))
    return at_positions(sums / jnp.maximum(counts, 1.0), tokens.segments) * tokens.mask


def policy_objective(
    tokens: Tokens,
    config: ObjectiveConfig,
    kl: KlConfig,
    coefficient: Float[Array, ""] | float,
    replies: int,
    longest: int,
) -> tuple[Mean, dict[str, Mean]]:
    """The loss as a sum and a count, and what to watch.

    Args:
      coefficient: of the KL term in the loss; 0 where it stands in the reward.
      replies: G, documents of a row at most.
      longest: tokens that a reply may have.

    Returns:
      The loss over the weights of its aggregation, and the metrics `ratio`, `clipped` (tokens whose
      gradient the clip or the cap changes), `entropy`, `kl_clamped` and `importance_cut`.
    """
    log_ratio = log_ratios(tokens, config, replies)
    ratio = jnp.exp(log_ratio)
    each, clipped = _surrogate(ratio, tokens, config)
    weight = importance_weights(tokens, config)
    each = weight * each
    if kl.where == "loss":
        penalty = kl_estimate(tokens.now, tokens.reference, kl.estimator)
        by = jnp.exp((tokens.now - tokens.old) * tokens.mask) if kl.times_ratio else 1.0
        each = each + coefficient * penalty * by
    if config.entropy:
        each = each - config.entropy * tokens.entropy
    apart = jnp.abs(tokens.now - tokens.reference) > CLAMP
    raw = jnp.exp(jax.lax.stop_gradient(tokens.old - tokens.sampler))
    watched = {
        "ratio": ratio,
        "clipped": clipped,
        "entropy": tokens.entropy,
        "kl_clamped": apart & (kl.estimator == "k3"),
        "importance_cut": (raw > config.importance_cap) & (config.importance_cap > 0),
    }
    count = tokens.mask.sum()
    means = {
        name: Mean(jnp.where(tokens.mask > 0, x, 0.0).sum(), count) for name, x in watched.items()
    }
    return aggregated(each, tokens.mask, tokens.segments, config, replies, longest), means


def _surrogate(ratio: Array, tokens: Tokens, config: ObjectiveConfig) -> tuple[Array, Array]:
    """The loss of each position, and where it is clipped."""
    A = tokens.advantages
    if config.surrogate == "plain":
        return -ratio * A, jnp.zeros(A.shape, bool)
    if config.surrogate == "cispo":
        capped = jax.lax.stop_gradient(jnp.minimum(ratio, config.cap))
        return -capped * A * tokens.now, (ratio > config.cap) & (A != 0)
    low, high = 1 - config.clip_low, 1 + config.clip_high
    each = -jnp.minimum(ratio * A, jnp.clip(ratio, low, high) * A)
    clipped = ((ratio < low) & (A < 0)) | ((ratio > high) & (A > 0))
    if config.dual_clip:
        most = -config.dual_clip * A
        clipped |= (A < 0) & (each > most)
        each = jnp.where(A < 0, jnp.minimum(each, most), each)
    return each, clipped


def importance_weights(tokens: Tokens, config: ObjectiveConfig) -> Float[Array, "B T"]:
    """`min(old / sampler, cap)`, constants: what makes another sampler's tokens count as ours.

    Ones without a cap. Where the sampler is the trainer they are 1 but for rounding.
    """
    if not config.importance_cap:
        return jnp.ones_like(tokens.mask)
    raw = jnp.exp((tokens.old - tokens.sampler) * tokens.mask)
    return jax.lax.stop_gradient(jnp.minimum(raw, config.importance_cap))


def aggregated(
    each: Float[Array, "B T"],
    mask: Float[Array, "B T"],
    segments: Int[Array, "B T"],
    config: ObjectiveConfig,
    replies: int,
    longest: int,
) -> Mean:
    """The positions' losses as a sum and a count that adds up over microbatches and devices.

    Of replies of 1 and 3 tokens with losses 4 and 0 0 0, "token" is 4 / 4, "sequence" 4 / 2, and
    "constant" with 8 tokens a reply 4 / 16. A reply without a token that trains counts nowhere.
    """
    kept = jnp.where(mask > 0, each, 0.0)
    if config.aggregate == "token":
        return Mean(kept.sum(), mask.sum())
    sums, counts = (summed_replies(x, segments, replies) for x in (kept, mask))
    alive = (counts > 0).sum().astype(jnp.float32)
    if config.aggregate == "sequence":
        return Mean((sums / jnp.maximum(counts, 1.0)).sum(), alive)
    return Mean(sums.sum(), alive * float(config.constant or longest))


def value_loss(
    values: Float[Array, "B T"],
    old: Float[Array, "B T"],
    returns: Float[Array, "B T"],
    clip: float,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Half the squared error of each value, and where the clip is what counts; `clip` 0 is none.

    As PPO's: the larger of the error and that of the value kept within `clip` of the old one.
    """
    plain = (values - returns) ** 2
    if not clip:
        return 0.5 * plain, jnp.zeros(plain.shape)
    near = (jnp.clip(values, old - clip, old + clip) - returns) ** 2
    return 0.5 * jnp.maximum(plain, near), (near > plain).astype(jnp.float32)


def adapted_coefficient(
    coefficient: Float[Array, ""], kl: Float[Array, ""], config: KlConfig
) -> Float[Array, ""]:
    """The next KL coefficient: up where `kl` (nats per reply) exceeds the target, else down.

    `beta (1 + clip(kl / target - 1, -.2, .2) / horizon)` (Ziegler et al., 2019, in updates).
    """
    if not config.target:
        return coefficient
    error = jnp.clip(kl / config.target - 1, -0.2, 0.2)
    return jnp.where(jnp.isfinite(kl), coefficient * (1 + error / config.horizon), coefficient)


def summed_replies(
    x: Float[Array, "B T"], segments: Int[Array, "B T"], replies: int
) -> Float[Array, "B G"]:
    """The sum over each reply of a row; reply `k` has the segment `k + 1`."""
    own = segments[:, None] == jnp.arange(1, replies + 1)[None, :, None]  # [B, G, T]
    return jnp.where(own, x[:, None], 0.0).sum(axis=2)


def at_positions(x: Float[Array, "B G"], segments: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """A reply's number at each of its positions; 0 in the prompt and in padding."""
    place = jnp.clip(segments - 1, 0, x.shape[1] - 1)
    return jnp.where(segments > 0, jnp.take_along_axis(x, place, axis=1), 0.0)

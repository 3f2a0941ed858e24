"""Policy steps: what replies earned becomes advantages, and these become updates.

One step is one rollout: the old log-probabilities, the reference's and the values are computed
once, then come `epochs x minibatches` updates, all in one program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Float, Int

from hen_jax.core.types import Array, Batch, Mean, Tree
from hen_jax.data.rollouts import Rollout, RolloutBounds
from hen_jax.models.decoder import merge
from hen_jax.objectives.policy import (
    Tokens,
    adapted_coefficient,
    aggregated,
    policy_objective,
    summed_replies,
    value_loss,
)
from hen_jax.objectives.tokens import score_tokens
from hen_jax.steps.lessons import Before, Lesson, lesson_of, part_metrics, rollout_metrics
from hen_jax.steps.policy_config import (
    BEHAVIOUR,
    CRITIC,
    DIALS,
    VALUE,
    PolicyConfig,
    base_of,
    decoder_of,
)
from hen_jax.steps.preference import BASE, REFERENCE
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Metrics, update_step


class Dials(NamedTuple):
    """Numbers that one update is told besides its batch."""

    coefficient: Float[Array, ""]  # of the KL term in the loss
    fresh: Any  # bool: nothing was updated since the rollout, so `old` is `now`


class TargetStats(NamedTuple):
    """What a model says of the targets of a rollout; zero where they do not train."""

    log_probs: Float[Array, "B T"]  # at the sampler's temperature
    entropy: Float[Array, "B T"]
    values: Float[Array, "B T"]  # of all positions of a reply; zeros without a value model


class Speech(NamedTuple):
    """A target's log-probability, and the entropy of the distribution it was drawn from."""

    log_probs: Float[Array, "B C"]
    entropy: Float[Array, "B C"]


def speech(logits: Float[Array, "B C V"], targets: Int[Array, "B C"]) -> Speech:
    """Natural logarithms, in float32; entropy in nats."""
    at_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    whole = jax.nn.logsumexp(logits, axis=-1)
    mean = (jax.nn.softmax(logits, axis=-1) * logits).sum(axis=-1)
    return Speech(at_target - whole, whole - mean)


Says = Callable[[Tree, Tree, Batch], TargetStats]
"""`says(params, frozen, batch)` of the policy."""


def policy_says(
    graphdef: nnx.GraphDef,
    config: PolicyConfig,
    sizes: RolloutBounds,
    temperature: float,
    chunk: int = 64,
) -> Says:
    """The forward pass of a policy and, where it has one, of its value model.

    `params` are the decoder's leaves that train, with the value model's beside them; the rest of
    the decoder is `frozen["base"]`. A row beyond `sizes` gives NaN.
    """

    def says(params: Tree, frozen: Tree, batch: Batch) -> TargetStats:
        base = base_of(frozen)
        model = merge(graphdef, decoder_of(params), base)
        hidden = model.hidden(batch.tokens, batch.positions, batch.segments, sizes.reach)
        logits = model.scorer()
        said = score_tokens(
            lambda h: logits(h) / temperature,
            hidden,
            batch.targets,
            batch.mask,
            sizes.trained,
            chunk,
            speech,
        )
        if not config.valued:
            return TargetStats(said.log_probs, said.entropy, jnp.zeros_like(said.log_probs))
        if config.value.model == "adapter":
            critic = merge(graphdef, params[VALUE][CRITIC], base)
            hidden = critic.hidden(batch.tokens, batch.positions, batch.segments, sizes.reach)
        kernel = params[VALUE]["kernel"]
        values = jnp.matmul(hidden.astype(jnp.float32), kernel, precision="highest")[..., 0]
        return TargetStats(*said, jnp.where(batch.segments > 0, values, 0.0))

    return says


def policy_loss(says: Says, config: PolicyConfig, sizes: RolloutBounds) -> Loss:
    """The loss of a `Lesson`; `frozen[DIALS]` are its `Dials`.

    In the first update after a rollout `old` is what the update itself computes: the ratio is 1
    to the last bit. What the sampler said is compared with it in any case (`sampler_gap`).
    """

    def loss(params: Tree, frozen: Tree, lesson: Lesson) -> tuple[Mean, Metrics]:
        dials: Dials = frozen[DIALS]
        said = says(params, frozen, lesson.batch)
        old = jnp.where(dials.fresh, jax.lax.stop_gradient(said.log_probs), lesson.old)
        reference = lesson.reference
        if config.kl.needed and not _looks(config):
            at_start = {**frozen[REFERENCE], VALUE: params.get(VALUE)}
            reference = jax.lax.stop_gradient(says(at_start, frozen, lesson.batch).log_probs)
        mask, segments = lesson.batch.mask, lesson.batch.segments
        tokens = Tokens(
            said.log_probs,
            old,
            reference,
            lesson.sampler,
            said.entropy,
            lesson.advantages,
            mask,
            segments,
        )
        G = sizes.replies
        mean, metrics = policy_objective(
            tokens, config.objective, config.kl, dials.coefficient, G, sizes.longest
        )
        metrics |= _closeness(tokens, config, G)
        if config.valued:
            each, clipped = value_loss(
                said.values, lesson.values, lesson.returns, config.value.clip
            )
            of_values = aggregated(each, mask, segments, config.objective, G, sizes.longest)
            mean = Mean(mean.total + config.value.coefficient * of_values.total, mean.count)
            metrics |= {
                "value_loss": of_values,
                "value_clipped": Mean((clipped * mask).sum(), mask.sum()),
            }
        return mean, metrics

    return loss


def _closeness(tokens: Tokens, config: PolicyConfig, replies: int) -> Metrics:
    """How far sampler, policy and reference are from each other."""
    gap = jnp.where(tokens.mask > 0, jnp.abs(tokens.sampler - tokens.old), 0.0)
    one = jnp.ones((), jnp.float32)
    found = {
        "sampler_gap": Mean(gap.sum(), tokens.mask.sum()),
        "sampler_gap_max": Mean(gap.max(), one),
    }
    if config.kl.needed:
        each = jnp.where(tokens.mask > 0, tokens.old - tokens.reference, 0.0)
        alive = summed_replies(tokens.mask, tokens.segments, replies) > 0
        found["kl"] = Mean(each.sum(), alive.sum().astype(jnp.float32))
    return found


def _looks(config: PolicyConfig) -> bool:
    """Whether anything must be computed before the first update of a rollout."""
    in_reward = config.kl.where == "reward" and config.kl.coefficient > 0
    return config.valued or config.updates > 1 or in_reward


def before_updates(
    says: Says, config: PolicyConfig, params: Tree, frozen: Tree, batch: Batch, parts: int
) -> Before:
    """Forward passes over the rollout, in as many parts as an update has microbatches."""

    def look(part: Batch) -> Before:
        said = says(params, frozen, part)
        reference = jnp.zeros_like(said.log_probs)
        if config.kl.needed:
            at_start = {**frozen[REFERENCE], VALUE: params.get(VALUE)}
            reference = says(at_start, frozen, part).log_probs
        return Before(said.log_probs, reference, said.values)

    if not _looks(config):
        nothing = jnp.zeros(batch.tokens.shape, jnp.float32)
        return Before(nothing, nothing, nothing)
    if parts == 1:
        return look(batch)
    found = jax.lax.map(look, dealt(batch, parts))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), found)


def dealt(tree: Tree, parts: int) -> Tree:
    """Rows dealt out like cards, so that each part spans all devices: `[parts, B / parts, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), tree)


def first_memory(config: PolicyConfig) -> Tree:
    """What the stage carries from rollout to rollout."""
    return {"coefficient": jnp.asarray(config.kl.coefficient, jnp.float32)}


def policy_step(
    says: Says,
    config: PolicyConfig,
    sizes: RolloutBounds,
    optimizer: optax.GradientTransformation,
    microbatches: int = 1,
    names: tuple[str | None, ...] = (),
) -> Callable[[State, Tree, Rollout], tuple[State, Metrics]]:
    """A pure step: `config.updates` updates on one rollout; `state.step` counts rollouts.

    Groups are dealt to the minibatches like cards, the same in every epoch. `names` are those of
    the rewards, for the log.
    """
    update = update_step(policy_loss(says, config, sizes), optimizer, microbatches)

    def learn(state: State, frozen: Tree, rollout: Rollout) -> tuple[State, Metrics]:
        coefficient = state.memory["coefficient"]
        parts = microbatches * config.minibatches
        before = before_updates(says, config, state.params, frozen, rollout.batch, parts)
        lesson, watched = lesson_of(rollout, before, config, coefficient)
        after, metrics = _updates(update, config, state, frozen, lesson, coefficient)
        memory = dict(state.memory)
        if BEHAVIOUR in memory:
            memory[BEHAVIOUR] = decoder_of(state.params)
        if config.kl.needed:
            memory["coefficient"] = adapted_coefficient(coefficient, metrics["kl"].value, config.kl)
            watched["kl_coefficient"] = Mean(coefficient, jnp.ones((), jnp.float32))
        after = after._replace(step=state.step + 1, memory=memory)
        return after, metrics | watched | part_metrics(rollout, names)

    return learn


def _updates(
    update: Callable[[State, Tree, Lesson], tuple[State, Metrics]],
    config: PolicyConfig,
    state: State,
    frozen: Tree,
    lesson: Lesson,
    coefficient: Float[Array, ""],
) -> tuple[State, Metrics]:
    """All updates of a rollout, and the sums of their metrics."""

    def one(state: State, number: Array | int) -> tuple[State, Metrics]:
        dials = Dials(coefficient, jnp.asarray(number) == 0)
        rows = lesson
        if config.minibatches > 1:
            place = number % config.minibatches
            rows = jax.tree.map(lambda x: x[place], dealt(lesson, config.minibatches))
        kept = frozen if BASE in frozen else {BASE: frozen}
        return update(state, {**kept, DIALS: dials}, rows)

    # Its rounding is keyed by the number of the update, and not of the rollout.
    inner = state._replace(step=state.step * config.updates)
    if config.updates == 1:
        return one(inner, 0)
    after, each = jax.lax.scan(one, inner, jnp.arange(config.updates))
    return after, jax.tree.map(lambda x: x.sum(axis=0), each)


def policy_score(
    says: Says, config: PolicyConfig, names: tuple[str | None, ...] = ()
) -> Callable[[Tree, Tree, Rollout], tuple[Mean, Metrics]]:
    """What an evaluation sums over held-out rollouts: minus the reward, and what to watch."""

    def score(params: Tree, frozen: Tree, rollout: Rollout) -> tuple[Mean, Metrics]:
        mask, segments = rollout.batch.mask, rollout.batch.segments
        drawn = summed_replies(mask, segments, rollout.rewards.shape[1]) > 0
        found = rollout_metrics(rollout, rollout.valid & drawn) | part_metrics(rollout, names)
        if config.kl.needed:
            now = says(params, frozen, rollout.batch)
            at_start = {**frozen[REFERENCE], VALUE: params.get(VALUE)}
            then = says(at_start, frozen, rollout.batch).log_probs
            each = jnp.where(mask > 0, now.log_probs - then, 0.0)
            found["kl"] = Mean(each.sum(), drawn.sum().astype(jnp.float32))
            found["entropy"] = Mean((now.entropy * mask).sum(), mask.sum())
        reward = found["reward"]
        return Mean(-reward.total, reward.count), found

    return score

"""Curricula with parameters of their own, trained through the unrolled training they shape.

EMCL-B, a soft order: with `P = soft_sort(psi)`,

    theta_{j+1} = theta_j - alpha sum_tau P[j, tau] grad L_tau(theta_j; S_tau),   j = 0 .. |T| - 1
    F(psi, theta_0) = mean_tau L_tau(theta_{|T|}; Q_tau)

EMCL-C, a scorer (DataRater, arXiv 2505.17895): the weights of a batch's examples are the softmax
of what a small network says of them, times any weight they come with; `F` is as above, after `K`
steps on all tasks' rows. In both, `theta_0` and the curriculum follow the exact gradient of `F`.

With `carry` (ours) the inner steps are training, not a rehearsal: they are made by the optimizer
of the run, which needs a derivative at zero (`eps_root`), the next step starts where they end, as
in DataRater, and the outer update of `theta_0` is made there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Float, PRNGKeyArray

from hen_jax.core.types import Array, Batch, Tree
from hen_jax.curricula.shared import (
    CurriculumMemory,
    EmclConfig,
    EpisodeStep,
    flat,
    inner_optimizer,
    learner,
    mean_of,
    per_task,
    task_loss,
)
from hen_jax.data.episodes import Episode
from hen_jax.meta.gradients import MetaGradient, meta_gradient
from hen_jax.meta.inner import InnerLoop
from hen_jax.models.decoder import merge
from hen_jax.objectives.curriculum import averaged_difficulty, places, soft_sort
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Metrics

Features = Callable[[Tree, Tree, Batch], Float[Array, "B F"]]
"""`features(params, frozen, batch)`, what a scorer sees of each example."""


def soft_order_step(
    config: EmclConfig, loss: Loss, optimizer: optax.GradientTransformation, tasks: tuple[str, ...]
) -> EpisodeStep:
    """EMCL-B. Place `j` trains on the `j`-th batch of the support, in turn.

    With `sharing` (ours) only the tasks with the largest shares of a place train there: the cost
    falls from all tasks at every place to a few, and the gradient tells which neighbours to swap.
    """

    def step(state: State, frozen: Tree, episode: Episode) -> tuple[State, Metrics]:
        each = jax.vmap(task_loss(loss, frozen), in_axes=(None, None, 0))

        def mixed(theta: Tree, eta: Tree, batch: tuple[Batch, Array]) -> Array:
            support, place = batch
            mixture = soft_sort(eta["order"], config.temperature)[place]
            share, chosen = jax.lax.top_k(mixture, config.sharing or len(tasks))
            losses = each(theta, None, jax.tree.map(lambda x: x[chosen], support))
            return share @ losses / share.sum()

        at = jnp.arange(len(tasks))
        support = jax.tree.map(lambda x: jnp.moveaxis(x[:, at % x.shape[1]], 1, 0), episode.support)
        rule = optimizer if config.carry else inner_optimizer(config)
        inner = InnerLoop(mixed, rule, len(tasks))
        found, difficulty = through(config, inner, each, state, (support, at), episode.query)
        state = learn(config, optimizer, state, found, difficulty)
        scores = state.memory.eta["order"]
        metrics = _metrics(difficulty, tasks) | per_task("score", scores, tasks)
        return state, metrics | per_task("place", places(jnp.argsort(scores)), tasks)

    return step


def weighted_step(
    config: EmclConfig,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    tasks: tuple[str, ...],
    features: Features,
) -> EpisodeStep:
    """EMCL-C. The learnt order it logs is that of the tasks' mean weights, heaviest first."""

    def step(state: State, frozen: Tree, episode: Episode) -> tuple[State, Metrics]:
        each = jax.vmap(task_loss(loss, frozen), in_axes=(None, None, 0))

        def weighed(theta: Tree, eta: Tree, batch: tuple[Batch, Array]) -> Array:
            rows, seen = batch
            own = 1.0 if rows.weight is None else rows.weight
            rows = rows._replace(weight=own * _weights(eta, seen))
            return task_loss(loss, frozen)(theta, None, rows)

        by_step = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), episode.support)
        rows = jax.vmap(lambda batch: flat(batch, 2))(by_step)
        seen = jax.vmap(lambda batch: features(state.params, frozen, batch))(rows)
        seen = jax.lax.stop_gradient(seen)
        rule = optimizer if config.carry else inner_optimizer(config)
        inner = InnerLoop(weighed, rule, config.inner_steps)
        found, difficulty = through(config, inner, each, state, (rows, seen), episode.query)
        weights = jax.vmap(_weights, in_axes=(None, 0))(state.memory.eta, seen)
        weights = weights.reshape(config.inner_steps, len(tasks), -1).mean((0, 2))
        state = learn(config, optimizer, state, found, difficulty)
        metrics = _metrics(difficulty, tasks) | per_task("weight", weights, tasks)
        return state, metrics | per_task("place", places(jnp.argsort(-weights)), tasks)

    return step


def init_scorer(key: PRNGKeyArray, features: int, width: int) -> Tree:
    """A network of one hidden layer that scores every example 0, so that all weigh the same."""
    return {
        "hidden": jax.random.normal(key, (features, width)) / jnp.sqrt(features),
        "bias": jnp.zeros(width),
        "out": jnp.zeros(width),
    }


def reply_features(graphdef: nnx.GraphDef) -> Features:
    """The mean token vector of each reply, at unit length per entry, and its log length: cheap.

    `F` is the model's width + 1.
    """

    def features(params: Tree, frozen: Tree, batch: Batch) -> Float[Array, "B F"]:
        vectors = merge(graphdef, params, frozen).embedded(batch.tokens).astype(jnp.float32)
        counts = jnp.maximum(batch.mask.sum(1, keepdims=True), 1)
        mean = (vectors * batch.mask[..., None]).sum(1) / counts
        size = jnp.sqrt(jnp.mean(mean**2, axis=1, keepdims=True) + 1e-12)
        return jnp.concatenate([mean / size, jnp.log(counts)], axis=1)

    return features


def score_examples(eta: Tree, features: Float[Array, "B F"]) -> Float[Array, "B"]:
    """What the scorer says of each example."""
    return jnp.tanh(features @ eta["hidden"] + eta["bias"]) @ eta["out"]


def _weights(eta: Tree, features: Array) -> Array:
    """Mean 1 over the batch."""
    return len(features) * jax.nn.softmax(score_examples(eta, features))


def through(
    config: EmclConfig, inner: InnerLoop, each: Callable, state: State, batches: Tree, query: Batch
) -> tuple[MetaGradient, Array]:
    """The meta-gradient of the mean query loss, and the query loss of each task."""

    def outer_loss(theta: Tree, eta: Tree, query: Batch) -> Array:
        return eta["share"] @ each(theta, None, query)

    tasks = len(query.tokens)
    eta = state.memory.eta | {"share": jnp.full(tasks, 1 / tasks)}
    found = meta_gradient(inner, outer_loss, config.mode)(
        state.params, eta, batches, query, state.opt_state if config.carry else None
    )
    # F is linear in the shares, so its derivative is each task's loss: no second forward pass.
    learnt = {name: leaf for name, leaf in found.eta.items() if name != "share"}
    return found._replace(eta=learnt), found.eta["share"]


def learn(
    config: EmclConfig,
    optimizer: optax.GradientTransformation,
    state: State,
    found: MetaGradient,
    difficulty: Array,
) -> State:
    """The state after an outer update of the parameters, and one of what the curriculum learns."""
    memory: CurriculumMemory = state.memory
    start, before = state.params, state.opt_state
    if config.carry:
        start, before = found.trained.theta, found.trained.state
    updates, optimizer_state = optimizer.update(found.theta, before, start)
    eta_updates, eta_state = learner(config).update(found.eta, memory.eta_state, memory.eta)
    running = averaged_difficulty(memory.difficulty, difficulty, state.step, config.smoothing)
    eta = optax.apply_updates(memory.eta, eta_updates)
    memory = memory._replace(difficulty=running, eta=eta, eta_state=eta_state)
    params = optax.apply_updates(start, updates)
    return State(params, optimizer_state, state.step + 1, state.key, memory)


def _metrics(difficulty: Array, tasks: tuple[str, ...]) -> Metrics:
    return {"loss": mean_of(difficulty), **per_task("difficulty", difficulty, tasks)}

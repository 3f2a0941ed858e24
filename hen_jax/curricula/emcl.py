"""Empathetic-oriented meta-curriculum learning (EMCL): the outer step, and its baselines.

The paper says that EMCL dynamically learns the order of the tasks, easiest to hardest. Its
equations are not public: what stands here is our reconstruction.

    c      = competence(m)                                   the share of tasks that may be seen
    d_tau  = L_tau(theta_tau^K; Q_tau)                       difficulty: query loss after K steps
    dbar   = rho dbar + (1 - rho) d
    for tau in the first ceil(c |T|) tasks of argsort(dbar), easiest first:
        theta = optimizer(theta, d L_tau(theta_tau^K(theta); Q_tau) / d theta)

With `difficulty="visited"` (ours) the tasks are ordered by the `dbar` of the step before, and `d`
is what the visits see anyway: a task that learns gives its loss on the way. One that must still
wait is measured at the first step and keeps that difficulty. So the order costs next to nothing.

With `carry` (ours) the `K` steps on a task are training and not a rehearsal: the run's optimizer
makes them, and the update with the meta-gradient of theta is made where they end.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int, PRNGKeyArray

from hen_jax.core.types import Array, Batch, Mean, Tree
from hen_jax.curricula import reweight
from hen_jax.curricula.learnt import Features, init_scorer, soft_order_step, weighted_step
from hen_jax.curricula.row_weights import init_reweighting
from hen_jax.curricula.shared import (
    CurriculumMemory,
    EmclConfig,
    EpisodeStep,
    adaptation,
    adapted_loss,
    flat,
    learner,
    mean_of,
    over_tasks,
    per_task,
    single,
    task_loss,
)
from hen_jax.data.episodes import Episode
from hen_jax.meta.gradients import meta_gradient
from hen_jax.objectives.curriculum import (
    active_tasks,
    averaged_difficulty,
    competence,
    places,
)
from hen_jax.steps.aligned import RowSums, loss_row_sums
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Metrics, update_step


def emcl_step(
    config: EmclConfig,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    tasks: tuple[str, ...],
    steps: int,
    features: Features | None = None,
    row_sums: RowSums | None = None,
) -> EpisodeStep:
    """`step(state, frozen, episode) -> (state, metrics)` of the curriculum that `config` names.

    Pure; `state.memory` is a `CurriculumMemory`, see `init_memory`. Every update of the parameters
    is one of `optimizer` (`outer_updates` counts them, for a schedule).

    Args:
      config: which curriculum, and its numbers.
      loss: as for every step; `emcl_c` needs one that honours `batch.weight`.
      optimizer: of the outer updates.
      tasks: their names, in the order of the episode's leading axis, easiest first.
      steps: of the whole run; competence reaches 1 with the last.
      features: `emcl_c`: what the scorer sees of each example.
      row_sums: `reweight`: as the loss; None makes it of `loss`.
    """
    match config.curriculum:
        case "emcl_b":
            return soft_order_step(config, loss, optimizer, tasks)
        case "emcl_c":
            assert features is not None, "emcl_c scores examples by their features"
            return weighted_step(config, loss, optimizer, tasks, features)
        case "reweight" if config.mode == "first_order":
            sums = row_sums or loss_row_sums(loss)
            return reweight.aligned_step(config, optimizer, tasks, steps, sums)
        case "reweight":
            sums = row_sums or loss_row_sums(loss)
            return reweight.exact_step(config, loss, optimizer, tasks, steps, sums)
        case "uniform":
            return _uniform_step(config, loss, optimizer, tasks)
        case "sft":
            return _sft_step(loss, optimizer)
        case _:
            return _paced_step(config, loss, optimizer, tasks, steps)


def init_memory(
    config: EmclConfig,
    tasks: tuple[str, ...],
    key: PRNGKeyArray,
    features: int = 0,
    examples: int = 0,
) -> CurriculumMemory:
    """What a curriculum carries before the first step.

    `features` is the size of what `emcl_c` scores; `reweight` remembers so many `examples`. The
    scores of `emcl_b` start as the listed order, two temperatures apart.
    """
    if config.curriculum == "reweight":
        return init_reweighting(config, len(tasks), key, examples)
    eta: Tree = {}
    if config.curriculum == "emcl_b":
        eta = {"order": 2 * config.temperature * jnp.arange(len(tasks), dtype=jnp.float32)}
    if config.curriculum == "emcl_c":
        eta = init_scorer(key, features, config.scorer_width)
    return CurriculumMemory(jnp.zeros(len(tasks)), eta, learner(config).init(eta))


def _paced_step(
    config: EmclConfig,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    tasks: tuple[str, ...],
    steps: int,
) -> EpisodeStep:
    """One outer update per active task, in the curriculum's order: EMCL-A and the fixed orders."""
    measures = config.curriculum == "emcl_a"
    fresh = measures and config.difficulty == "fresh"

    def step(state: State, frozen: Tree, episode: Episode) -> tuple[State, Metrics]:
        measure = adapted_loss(config, loss, frozen)
        difficulty = state.memory.difficulty
        kept = {"step": state.step, "smoothing": config.smoothing}
        if fresh:
            now = over_tasks(config, measure, state.params, episode)
            difficulty = averaged_difficulty(difficulty, now, **kept)
        order = _order(config, state, difficulty)
        share = competence(state.step, steps, config.initial_competence)
        active = active_tasks(share, len(tasks))
        learn = _visit(config, loss, optimizer, frozen)

        def visit(carry: tuple, place: Array) -> tuple[tuple, Array]:
            task = order[place]
            support, query = jax.tree.map(lambda x: jnp.asarray(x)[task], tuple(episode))

            def wait(carry: tuple) -> tuple[tuple, Array]:
                if not measures or fresh:
                    return carry, difficulty[task]
                look = functools.partial(measure, carry[0], support, query)
                return carry, jax.lax.cond(state.step == 0, look, lambda: difficulty[task])

            return jax.lax.cond(place < active, lambda c: learn(c, support, query), wait, carry)

        start = (state.params, state.opt_state)
        (params, optimizer_state), seen = jax.lax.scan(visit, start, jnp.arange(len(tasks)))
        if measures and not fresh:
            now = jnp.zeros_like(seen).at[order].set(seen)
            difficulty = averaged_difficulty(difficulty, now, **kept)
        memory = state.memory._replace(difficulty=difficulty)
        metrics = _pacing(tasks, order, seen, share, active)
        if measures:
            metrics |= per_task("difficulty", difficulty, tasks)
        return _next(state, params, optimizer_state)._replace(memory=memory), metrics

    return step


def _pacing(
    tasks: tuple[str, ...], order: Array, seen: Array, share: Array, active: Array
) -> Metrics:
    return {
        "loss": _mean_of_first(seen, active),
        "competence": single(share),
        "active": single(active),
        **per_task("place", places(order), tasks),
    }


def _mean_of_first(values: Array, count: Array) -> Mean:
    kept = jnp.where(jnp.arange(len(values)) < count, values, 0.0)
    return Mean(kept.sum(), count.astype(jnp.float32))


def _visit(
    config: EmclConfig, loss: Loss, optimizer: optax.GradientTransformation, frozen: Tree
) -> Callable[[tuple, Batch, Batch], tuple[tuple, Array]]:
    """`(carry, support, query) -> (carry, query loss)`: what a visit does to a task that learns.

    The carry is the parameters and the state of their optimizer.
    """
    inner = adaptation(config, loss, frozen)
    if config.carry:
        inner = dataclasses.replace(inner, optimizer=optimizer)
    gradient = meta_gradient(inner, task_loss(loss, frozen), config.mode)

    def learn(carry: tuple, support: Batch, query: Batch) -> tuple[tuple, Array]:
        start, optimizer_state = carry
        found = gradient(start, None, support, query, optimizer_state if config.carry else None)
        if config.carry:
            carry = (found.trained.theta, found.trained.state)
        return _update(optimizer, carry, found.theta), found.value

    return learn


def _order(config: EmclConfig, state: State, difficulty: Array) -> Int[Array, "tasks"]:
    listed = jnp.arange(len(difficulty))
    match config.curriculum:
        case "easy_to_hard":
            return listed
        case "hard_to_easy":
            return listed[::-1]
        case "random":
            return jax.random.permutation(jax.random.fold_in(state.key, state.step), listed)
        case _:
            return jnp.argsort(difficulty)


def _uniform_step(
    config: EmclConfig,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    tasks: tuple[str, ...],
) -> EpisodeStep:
    """One outer update with the mean of all tasks' meta-gradients."""

    def step(state: State, frozen: Tree, episode: Episode) -> tuple[State, Metrics]:
        inner, query_loss = adaptation(config, loss, frozen), task_loss(loss, frozen)
        gradient = meta_gradient(inner, query_loss, config.mode)

        def of_task(theta: Tree, support: Batch, query: Batch) -> tuple[Array, Tree]:
            found = gradient(theta, None, support, query)
            return found.value, found.theta

        values, slopes = over_tasks(config, of_task, state.params, episode)
        slope = jax.tree.map(lambda g: g.mean(0), slopes)
        params, optimizer_state = _update(optimizer, (state.params, state.opt_state), slope)
        metrics = {"loss": mean_of(values), **per_task("difficulty", values, tasks)}
        return _next(state, params, optimizer_state), metrics

    return step


def _sft_step(loss: Loss, optimizer: optax.GradientTransformation) -> EpisodeStep:
    """Plain fine-tuning on all rows of the episode."""
    update = update_step(loss, optimizer)

    def step(state: State, frozen: Tree, episode: Episode) -> tuple[State, Metrics]:
        rows = jax.tree.map(
            lambda *sides: jnp.concatenate(sides), flat(episode.support, 3), flat(episode.query, 2)
        )
        return update(state, frozen, rows)

    return step


def _update(
    optimizer: optax.GradientTransformation, carry: tuple, slope: Tree
) -> tuple[Tree, optax.OptState]:
    params, optimizer_state = carry
    updates, optimizer_state = optimizer.update(slope, optimizer_state, params)
    return optax.apply_updates(params, updates), optimizer_state


def _next(state: State, params: Tree, optimizer_state: optax.OptState) -> State:
    return state._replace(params=params, opt_state=optimizer_state, step=state.step + 1)

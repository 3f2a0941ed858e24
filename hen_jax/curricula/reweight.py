"""Amounts: how much each example trains, learnt on held-out rows; the order of tasks follows.

The weights of a batch's `B` rows have mean 1. With `u = 2 t / T - 1` over a run of `T` steps,

    w = B softmax(l) (1 - floor) + floor,
    l = bound tanh((a_task + b_task u + s(row)) / bound);

`a` says how much a task trains, `b` when (an onset, of which an order is a case), and the scorer
`s`, a small network, sees the row's own loss, how far it fell since the row's last visit, the
influence that was measured then, whether there was one, and its length. All begin at 0: all rows
weigh the same. What is learnt follows the gradient of the loss on held-out rows,

    exactly (`mixflow`, `unroll`), through `K` weighted steps, or
    by alignment (`first_order`): -<sum_i w_i grad L_i / sum_i w_i, g>, g the mean gradient of
    held-out rows. With an adapter it costs the columns of two more: see `steps.aligned`.

The influence of a row, kept in a table for its next visit, is what a larger weight of it would have
spared the held-out loss, above the batch's mean. Of exact gradients it comes as the derivative by a
factor on each row.

Kin: Ren et al. (2018) reweight by the sign of the alignment alone; Meta-Weight-Net (Shu et al.,
2019) learns a map of the loss; DataRater (arXiv 2505.17895) a map of the text. The table, the onset
and the alignment by a gate are ours.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from hen_jax.core.types import Array, Batch, Mean, Tree
from hen_jax.curricula.learnt import learn, through
from hen_jax.curricula.row_weights import RowsSeen, Visits, row_weights, seen_of, visited
from hen_jax.curricula.shared import (
    CurriculumMemory,
    EmclConfig,
    EpisodeStep,
    flat,
    inner_optimizer,
    learner,
    mean_of,
    per_task,
    single,
    task_loss,
)
from hen_jax.data.episodes import Episode
from hen_jax.meta.inner import InnerLoop
from hen_jax.objectives.curriculum import averaged_difficulty, places
from hen_jax.steps.aligned import RowSums
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Metrics


def _time(state: State, steps: int) -> Float[Array, ""]:
    return 2 * jnp.minimum(state.step / max(1, steps - 1), 1.0) - 1


def exact_step(
    config: EmclConfig,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    tasks: tuple[str, ...],
    steps: int,
    row_sums: RowSums,
) -> EpisodeStep:
    """The weights learnt by the exact gradient through `K` weighted steps on all tasks' rows."""

    def step(state: State, frozen: Tree, episode: Episode) -> tuple[State, Metrics]:
        each = jax.vmap(task_loss(loss, frozen), in_axes=(None, None, 0))
        visits, time = state.memory.visits, _time(state, steps)
        by_step = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), episode.support)
        rows = jax.vmap(lambda batch: flat(batch, 2))(by_step)

        def look(_: None, batch: Batch) -> tuple[None, tuple[Array, Array]]:
            return None, row_sums(state.params, frozen, batch, None, None)

        _, (sums, counts) = jax.lax.scan(look, None, rows)
        seen = jax.vmap(partial(seen_of, visits))(rows, sums, counts)

        def weighed(theta: Tree, eta: Tree, given: tuple[Batch, RowsSeen, Array]) -> Array:
            batch, seen, at = given
            weights = row_weights(config, eta, seen, time) * eta["row"][at]
            own = 1.0 if batch.weight is None else batch.weight
            return task_loss(loss, frozen)(theta, None, batch._replace(weight=own * weights))

        rule = optimizer if config.carry else inner_optimizer(config)
        inner = InnerLoop(weighed, rule, config.inner_steps)
        factors = jnp.ones(sums.shape)
        memory = state.memory._replace(eta=state.memory.eta | {"row": factors})
        batches = (rows, seen, jnp.arange(config.inner_steps))
        found, difficulty = through(
            config, inner, each, state._replace(memory=memory), batches, episode.query
        )
        influence = -found.eta.pop("row") / jnp.maximum(counts, 1)
        weights = jax.vmap(lambda one: row_weights(config, state.memory.eta, one, time))(seen)
        metrics = _metrics(difficulty, tasks, seen.task, weights, state.memory.eta)
        state = learn(config, optimizer, state, found, difficulty)
        kept = visited(
            visits,
            jnp.asarray(rows.example).ravel(),
            (sums / counts).ravel(),
            _centred(influence.ravel()),
        )
        return state._replace(memory=state.memory._replace(visits=kept)), metrics

    return step


class _Looked(NamedTuple):
    """Support rows at a step."""

    sums: Float[Array, "B"]  # of their losses
    counts: Float[Array, "B"]  # of their tokens
    seen: RowsSeen
    weights: Float[Array, "B"]  # learnt, mean 1
    own: Array | float  # that they came with

    @property
    def per_token(self) -> Float[Array, "B"]:
        """Their losses."""
        return self.sums / jnp.maximum(self.counts, 1)

    def tokens(self, weights: Float[Array, "B"]) -> Float[Array, ""]:
        """What a sum of losses with these weights is divided by."""
        return (self.own * weights * self.counts).sum()


def aligned_step(
    config: EmclConfig,
    optimizer: optax.GradientTransformation,
    tasks: tuple[str, ...],
    steps: int,
    row_sums: RowSums,
) -> EpisodeStep:
    """The weights learnt by alignment; one update of the parameters by support, and by the query
    with `config.query_trains`."""

    def step(state: State, frozen: Tree, episode: Episode) -> tuple[State, Metrics]:
        memory: CurriculumMemory = state.memory
        time = _time(state, steps)
        support, query = flat(episode.support, 3), flat(episode.query, 2)
        asked, slope = _held_out(row_sums, state.params, frozen, query)
        weigh = partial(row_weights, config, memory.eta, time=time)
        look = partial(_look, row_sums, frozen, support, _unit(slope), memory.visits, weigh)
        slopes, aligned, rows = _weighted_slopes(look, state.params, len(support.tokens))

        grads = jax.tree.map(lambda g: g / rows.tokens(rows.weights), slopes)
        if config.query_trains:
            share = asked[1].sum() / (asked[1].sum() + (rows.own * rows.counts).sum())
            grads = jax.tree.map(lambda g, q: (1 - share) * g + share * q, grads, slope)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)

        losses = _by_task(asked[0], len(tasks)) / _by_task(asked[1], len(tasks))
        influence = _centred(aligned / jnp.maximum(rows.counts, 1))
        running = averaged_difficulty(memory.difficulty, losses, state.step, config.smoothing)
        eta, eta_state = _learnt(config, memory, rows, aligned, time)
        kept = visited(memory.visits, support.example, rows.per_token, influence)
        metrics = _metrics(losses, tasks, support.task, rows.weights, memory.eta)
        after = CurriculumMemory(running, eta, eta_state, kept)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, state.step + 1, state.key, after), metrics

    return step


def _held_out(
    row_sums: RowSums, params: Tree, frozen: Tree, query: Batch
) -> tuple[tuple[Array, Array], Tree]:
    """Sums and counts of the held-out rows, and the gradient of their mean loss."""

    def mean(params: Tree) -> tuple[Array, tuple[Array, Array]]:
        sums, counts = row_sums(params, frozen, query, None, None)
        return sums.sum() / counts.sum(), (sums, counts)

    slope, asked = jax.grad(mean, has_aux=True)(params)
    return asked, slope


def _unit(tree: Tree) -> Tree:
    scale = 1 / jnp.maximum(optax.tree.norm(tree), 1e-30)
    return jax.tree.map(lambda leaf: leaf * scale, tree)


def _look(
    row_sums: RowSums,
    frozen: Tree,
    support: Batch,
    along: Tree,
    visits: Visits,
    weigh: Callable[[RowsSeen], Array],
    params: Tree,
    gate: Array,
) -> tuple[Array, _Looked]:
    """The weighted sum of the rows' losses; the weights are constants in it."""
    sums, counts = row_sums(params, frozen, support, along, gate)
    seen = seen_of(visits, support, sums, counts)
    weights = jax.lax.stop_gradient(weigh(seen))
    own = 1.0 if support.weight is None else support.weight
    rows = _Looked(jax.lax.stop_gradient(sums), counts, seen, weights, own)
    return (own * weights * sums).sum(), rows


def _weighted_slopes(
    look: Callable[[Tree, Array], tuple[Array, _Looked]], params: Tree, rows: int
) -> tuple[Tree, Float[Array, "B"], _Looked]:
    """The gradient of the weighted sum, and of each row's sum the derivative along the direction,
    with the weight that the row came with."""
    (slopes, by_gate), looked = jax.grad(look, argnums=(0, 1), has_aux=True)(
        params, jnp.zeros(rows)
    )
    return slopes, by_gate / looked.weights, looked


def _learnt(
    config: EmclConfig,
    memory: CurriculumMemory,
    rows: _Looked,
    aligned: Float[Array, "B"],
    time: Float[Array, ""],
) -> tuple[Tree, optax.OptState]:
    """What is learnt, after a step against the alignment of the weighted mean gradient."""

    def lost(eta: Tree) -> Array:
        weights = row_weights(config, eta, rows.seen, time)
        return -(weights * aligned).sum() / rows.tokens(weights)

    slope = jax.grad(lost)(memory.eta)
    updates, state = learner(config).update(slope, memory.eta_state, memory.eta)
    return optax.apply_updates(memory.eta, updates), state


def _by_task(values: Float[Array, "B"], tasks: int) -> Float[Array, "tasks"]:
    return values.reshape(tasks, -1).sum(axis=1)


def _centred(values: Float[Array, "B"]) -> Float[Array, "B"]:
    return values - values.mean()


def _metrics(
    difficulty: Array, tasks: tuple[str, ...], task: Array, weights: Array, eta: Tree
) -> Metrics:
    """Mean weights by task; places are those of the onsets, earliest first."""
    member = task.ravel() == jnp.arange(len(tasks))[:, None]
    mean = (member * weights.ravel()).sum(1) / jnp.maximum(member.sum(1), 1)
    size = weights.size
    effective = Mean(weights.sum() ** 2 / (weights**2).sum() / size, jnp.ones(()))
    return {
        "loss": mean_of(difficulty),
        "effective_share": effective,
        "largest_weight": single(weights.max()),
        **per_task("difficulty", difficulty, tasks),
        **per_task("weight", mean, tasks),
        **per_task("onset", eta["onset"], tasks),
        **per_task("place", places(jnp.argsort(eta["onset"])), tasks),
    }

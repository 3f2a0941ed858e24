"""The EMCL step against its equations, on several devices, and from a checkpoint."""

from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh, replicated
from hen_jax.core.types import Batch, Mean
from hen_jax.curricula.emcl import emcl_step, init_memory
from hen_jax.curricula.shared import EmclConfig, evaluation
from hen_jax.data.episodes import Episode
from hen_jax.objectives.curriculum import soft_sort
from hen_jax.recipes.emcl_episodes import put_episode
from hen_jax.recipes.emcl_settings import EpisodeSettings
from hen_jax.steps.state import State, init_state
from hen_jax.training.checkpoints import Checkpoints

TASKS = ("SER", "SRER", "SPER", "SRPER")
N, K, ALPHA, BETA = 4, 2, 0.1, 0.05

# Quadratics: an example is a point (in `tokens`), a task has a curvature; one number trains.

CURVATURES = np.array([1.0, 0.2, 3.0, 0.6], np.float32)


def quadratic(params, frozen, batch: Batch):
    curvature = jnp.asarray(CURVATURES)[batch.task]
    each = curvature / 2 * (params - batch.tokens[:, 0]) ** 2
    weight = jnp.ones_like(each) if batch.weight is None else batch.weight
    return Mean((weight * each).sum(), weight.sum()), {}


def points(seed: int, rows: int = 2) -> Episode:
    def batch(*shape: int) -> Batch:
        x = np.random.default_rng([seed, len(shape)]).normal(size=(*shape, 1)).astype("float32")
        task = np.arange(N, dtype=np.int32).reshape((N,) + (1,) * (len(shape) - 1))
        return Batch(x, x, x, x, x, task=np.broadcast_to(task, shape))

    return Episode(batch(N, K, rows), batch(N, rows))


def begun(config: EmclConfig, params, optimizer, features: int = 1) -> State:
    memory = init_memory(config, TASKS, jax.random.key(1), features)
    return init_state(params, optimizer, 2, memory)


def adapted(theta: float, task: int, support: Batch, rate: float = ALPHA) -> tuple[float, float]:
    """Theta after K steps by hand, and its derivative with respect to the start."""
    slope = 1.0
    for k in range(K):
        theta -= rate * CURVATURES[task] * (theta - support.tokens[task, k].mean())
        slope *= 1 - rate * CURVATURES[task]
    return theta, slope


def query_loss(theta: float, task: int, query: Batch) -> float:
    return float(np.mean(CURVATURES[task] / 2 * (theta - query.tokens[task, :, 0]) ** 2))


@pytest.mark.parametrize(
    "ours",
    [{}, {"difficulty": "visited"}, {"difficulty": "visited", "carry": True}],
)
def test_emcl_a_is_the_loop_of_the_reconstruction(ours):
    steps = 6
    config = EmclConfig(inner_learning_rate=ALPHA, **ours)
    rate = BETA if config.carry else ALPHA
    optimizer = optax.sgd(BETA)
    step = jax.jit(emcl_step(config, quadratic, optimizer, TASKS, steps))
    state = begun(config, jnp.float32(2.0), optimizer)
    theta, dbar, orders = 2.0, np.zeros(N), set()
    for m in range(steps):
        support, query = points(m)
        state, metrics = step(state, {}, Episode(support, query))
        kept = 0.9 if m else 0.0
        if config.difficulty == "fresh":
            now = [query_loss(adapted(theta, t, support)[0], t, query) for t in range(N)]
            dbar = kept * dbar + (1 - kept) * np.array(now)
        order = np.argsort(dbar, kind="stable")
        active = int(np.ceil(4 * np.sqrt(m * 0.99 / steps + 0.01) - 1e-5))
        seen = dbar.copy()
        for place, task in enumerate(order):
            if place < active:
                end, slope = adapted(theta, task, support, rate)
                seen[task] = query_loss(end, task, query)
                error = end - query.tokens[task].mean()
                theta = end if config.carry else theta
                theta -= BETA * slope * CURVATURES[task] * error
            elif m == 0:
                seen[task] = query_loss(adapted(theta, task, support)[0], task, query)
        if config.difficulty == "visited":
            dbar = kept * dbar + (1 - kept) * seen
        orders.add(tuple(order))
        assert float(state.params) == pytest.approx(theta, rel=1e-5)
        np.testing.assert_allclose(state.memory.difficulty, dbar, rtol=1e-5)
        assert [float(metrics[f"place/{t}"].total) for t in TASKS] == np.argsort(order).tolist()
        assert metrics["active"].total == active == metrics["loss"].count
        assert float(metrics["loss"].total) == pytest.approx(seen[order[:active]].sum(), rel=1e-5)
    assert len(orders) > 1  # the order did change, so it was seen to be followed


def test_fixed_orders_visit_the_tasks_as_named():
    optimizer = optax.sgd(BETA)
    for curriculum, expected in (("easy_to_hard", [0, 1, 2, 3]), ("hard_to_easy", [3, 2, 1, 0])):
        config = EmclConfig(curriculum=curriculum, initial_competence=1.0)
        step = emcl_step(config, quadratic, optimizer, TASKS, 3)
        _, metrics = step(begun(config, jnp.float32(0.0), optimizer), {}, points(0))
        assert [int(metrics[f"place/{t}"].total) for t in TASKS] == expected
    config = EmclConfig(curriculum="random", initial_competence=1.0)
    step = jax.jit(emcl_step(config, quadratic, optimizer, TASKS, 30))
    state, seen = begun(config, jnp.float32(0.0), optimizer), set()
    for m in range(12):
        state, metrics = step(state, {}, points(m))
        seen.add(tuple(int(metrics[f"place/{t}"].total) for t in TASKS))
    assert len(seen) > 4


@pytest.mark.parametrize(("carry", "sharing"), [(False, None), (True, None), (False, 2)])
def test_emcl_b_follows_the_gradient_through_its_ordered_training(carry, sharing):
    config = EmclConfig(
        curriculum="emcl_b",
        inner_learning_rate=ALPHA,
        temperature=0.3,
        carry=carry,
        sharing=sharing,
    )
    optimizer = optax.sgd(ALPHA)
    drawn = points(3)

    def slope(theta, task, rows):
        return jnp.asarray(CURVATURES)[task] * (theta - rows.mean())

    def final(order, theta):
        mixture = soft_sort(order, 0.3)
        least = jnp.sort(mixture, axis=1)[:, -(sharing or N)][:, None]
        mixture = jnp.where(mixture >= least, mixture, 0.0)
        mixture /= mixture.sum(1, keepdims=True)
        for j in range(N):
            parts = [slope(theta, t, drawn.support.tokens[t, j % K]) for t in range(N)]
            theta = theta - ALPHA * mixture[j] @ jnp.stack(parts)
        errors = (theta - drawn.query.tokens[:, :, 0]) ** 2
        return jnp.mean(jnp.asarray(CURVATURES)[:, None] / 2 * errors), theta

    state = begun(config, jnp.float32(2.0), optimizer)
    order = jnp.asarray([0.0, 0.5, 1.3, 1.6])  # no two neighbours alike, so that two are the most
    state.memory.eta["order"] = order
    (value, end), (of_order, of_theta) = jax.value_and_grad(final, argnums=(0, 1), has_aux=True)(
        order, jnp.float32(2.0)
    )
    after, metrics = jax.jit(emcl_step(config, quadratic, optimizer, TASKS, 5))(state, {}, drawn)
    start = float(end) if carry else 2.0
    assert start - float(after.params) == pytest.approx(ALPHA * float(of_theta), rel=1e-4)
    first_moment = after.memory.eta_state[0].mu["order"]  # Adam's: a tenth of the gradient
    np.testing.assert_allclose(first_moment, 0.1 * of_order, rtol=1e-4, atol=1e-7)
    assert np.abs(of_order).min() > 0
    assert float(metrics["loss"].total) / N == pytest.approx(float(value), rel=1e-5)


def test_emcl_c_learns_to_leave_out_what_does_not_help():
    config = EmclConfig(
        curriculum="emcl_c", inner_learning_rate=0.3, learnt_rate=0.05, scorer_width=4
    )
    optimizer = optax.sgd(0.0)  # only the scorer learns

    def spoilt(seed: int) -> Episode:
        support, query = points(seed)
        tokens = support.tokens.copy()
        tokens[:, :, 1] = 5.0  # the second example of each task lies far off
        return Episode(support._replace(tokens=tokens), query)

    def features(params, frozen, batch):
        return (batch.tokens == 5.0).astype(jnp.float32)

    step = jax.jit(emcl_step(config, quadratic, optimizer, TASKS, 100, features))
    state, losses = begun(config, jnp.float32(0.0), optimizer), []
    for m in range(100):
        state, metrics = step(state, {}, spoilt(m))
        losses.append(float(metrics["loss"].total) / N)
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


def test_a_weight_from_outside_counts_in_every_curriculum():
    drawn = points(1)
    silenced = np.ones((N, K, 2), np.float32)
    silenced[:, :, 1] = 0.0
    moved = drawn.support.tokens.copy()
    moved[:, :, 1] += 100.0
    episodes = [
        Episode(drawn.support._replace(tokens=tokens, weight=silenced), drawn.query)
        for tokens in (drawn.support.tokens, moved)
    ]
    optimizer = optax.sgd(BETA)
    for curriculum in ("emcl_a", "emcl_b", "emcl_c"):
        config = EmclConfig(curriculum=curriculum, inner_learning_rate=ALPHA)
        step = jax.jit(
            emcl_step(
                config,
                quadratic,
                optimizer,
                TASKS,
                4,
                lambda params, frozen, b: 1.0 * b.task[:, None],
            )
        )
        ends = [step(begun(config, jnp.float32(1.0), optimizer), {}, e)[0] for e in episodes]
        assert float(ends[0].params) == float(ends[1].params) != 1.0


# A layer with a fresh low-rank adapter: b = 0, so the gradient of a is exactly zero at first.

WIDTH, RANK = 6, 2


def low_rank(params, frozen, batch: Batch):
    x = batch.tokens
    found = jnp.tanh(x @ frozen["w"] + (x @ params["a"]) @ params["b"])
    each = jnp.mean((found - batch.targets) ** 2, axis=-1)
    weight = jnp.ones_like(each) if batch.weight is None else batch.weight
    return Mean((weight * each).sum(), weight.sum()), {}


def vectors(rows: int, seed: int = 0) -> Episode:
    generator = np.random.default_rng(seed)

    def batch(*shape: int) -> Batch:
        x, y = generator.normal(size=(2, *shape, WIDTH)).astype("float32")
        return Batch(x, y, x, x, x)

    return Episode(batch(N, K, rows), batch(N, rows))


def adapter_and_base() -> tuple[dict, dict]:
    generator = np.random.default_rng(7)
    a, w = (generator.normal(size=(WIDTH, n)).astype("float32") for n in (RANK, WIDTH))
    return {"a": jnp.asarray(a), "b": jnp.zeros((RANK, WIDTH))}, {"w": jnp.asarray(w)}


def seen_by_scorer(params, frozen, batch: Batch):
    return batch.tokens


@pytest.mark.parametrize("curriculum", ["emcl_a", "emcl_b", "emcl_c"])
def test_no_nan_where_a_fresh_adapter_meets_adam_inside(curriculum):
    config = EmclConfig(
        curriculum=curriculum,
        inner_optimizer="adam",
        inner_learning_rate=1e-2,
        initial_competence=1.0,
    )
    optimizer, (adapter, base) = optax.adam(1e-2), adapter_and_base()
    step = jax.jit(emcl_step(config, low_rank, optimizer, TASKS, 2, seen_by_scorer))
    state = begun(config, adapter, optimizer, features=WIDTH)
    for number in range(2):
        state, metrics = step(state, base, vectors(2, number))
    finite = jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), (state.params, metrics))
    assert all(jax.tree.leaves(finite))
    assert all(jnp.abs(state.params[name] - adapter[name]).max() > 0 for name in adapter)


def on_mesh(mesh: Mesh, axis, curriculum: str) -> tuple:
    config = EmclConfig(
        curriculum=curriculum, inner_learning_rate=0.1, initial_competence=0.5, temperature=0.5
    )
    optimizer, (adapter, base) = optax.adam(1e-2), adapter_and_base()
    state, base = jax.device_put((begun(config, adapter, optimizer), base), replicated(mesh))
    drawn = put_episode(mesh, EpisodeSettings(task_axis=axis), vectors(4))
    after, _ = jax.jit(emcl_step(config, low_rank, optimizer, TASKS, 2))(state, base, drawn)
    mean, _ = jax.jit(evaluation(config, low_rank, TASKS))(after.params, base, drawn)
    return jax.device_get((after.params, after.opt_state, after.memory, mean.total))


@pytest.mark.parametrize("curriculum", ["emcl_a", "emcl_b", "uniform"])
def test_eight_devices_give_what_one_does_with_tasks_in_parallel(curriculum):
    one = on_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]), None, curriculum)
    eight = on_mesh(make_mesh(MeshConfig(2, 4, 1)), "data", curriculum)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), one, eight)


def test_rows_that_do_not_divide_over_the_devices_are_refused():
    with pytest.raises(InputError, match=r"config\.episode\.support_rows"):
        put_episode(make_mesh(MeshConfig(data=8)), EpisodeSettings(), vectors(2))


@pytest.mark.parametrize("curriculum", ["emcl_a", "emcl_b"])
def test_a_checkpoint_holds_the_whole_curriculum(curriculum, tmp_path):
    config = EmclConfig(curriculum=curriculum, inner_learning_rate=0.1, difficulty="visited")
    optimizer, (adapter, base) = optax.adam(1e-2), adapter_and_base()
    step = jax.jit(emcl_step(config, low_rank, optimizer, TASKS, 4))
    whole = begun(config, adapter, optimizer)
    with closing(Checkpoints(tmp_path, 1)) as checkpoints:
        for number in range(4):
            if number == 2:
                checkpoints.save(2, whole, {"step": 2}, {})
                checkpoints.wait()
            whole, _ = step(whole, base, vectors(2, number))
        resumed, place = checkpoints.restore(begun(config, adapter, optimizer))
    for number in range(place["step"], 4):
        resumed, _ = step(resumed, base, vectors(2, number))
    whole, resumed = (state._replace(key=()) for state in (whole, resumed))
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    assert np.any(resumed.memory.difficulty != 0)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(InputError, match="gives it no gradient"):
        EmclConfig(curriculum="emcl_b", mode="reptile")
    with pytest.raises(InputError, match="initial_competence is 0"):
        EmclConfig(initial_competence=0.0)

"""Amounts learnt on held-out rows: weights, influences, and that what does not help trains less."""

from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import batch_of, documents, stirred, tiny

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh, replicated
from hen_jax.core.types import Batch, Mean
from hen_jax.curricula.emcl import emcl_step, init_memory
from hen_jax.curricula.row_weights import RowsSeen, row_weights, visited
from hen_jax.curricula.shared import EmclConfig
from hen_jax.data.episodes import Episode
from hen_jax.models.config import LoraConfig
from hen_jax.recipes.emcl_episodes import put_episode
from hen_jax.recipes.emcl_settings import EpisodeSettings
from hen_jax.steps.aligned import adapter_row_sums, loss_row_sums
from hen_jax.steps.sft import sft_loss
from hen_jax.steps.state import init_state
from hen_jax.training.checkpoints import Checkpoints

LORA = LoraConfig(2, 6.0)
TASKS, K, ROWS = ("first", "second"), 2, 4
EXAMPLES = len(TASKS) * K * ROWS


@pytest.fixture(scope="module")
def model():
    parts = tiny(LORA)
    batch = batch_of([documents([9, 6], 1), documents([4], 2), documents([20], 3)], 24)
    direction = stirred(jax.tree.map(jnp.zeros_like, parts.adapter), 8)
    return parts.graphdef, stirred(parts.adapter, 5), parts.base, batch, direction


def test_the_derivative_by_the_gate_is_the_alignment_of_each_rows_gradient(model):
    graphdef, params, base, batch, direction = model
    loss = sft_loss(graphdef)

    @jax.jit
    def expected(row):
        mine = batch._replace(mask=batch.mask * (jnp.arange(3) == row)[:, None])
        total, grads = jax.value_and_grad(lambda params: loss(params, base, mine)[0].total)(params)
        return total, optax.tree.vdot(grads, direction)

    sums, aligned = zip(*[expected(row) for row in range(3)], strict=True)
    for row_sums in (adapter_row_sums(graphdef, LORA), loss_row_sums(loss)):
        plain, counts = jax.jit(lambda p, own=row_sums: own(p, base, batch, None, None))(params)
        np.testing.assert_allclose(plain, sums, rtol=1e-5)
        np.testing.assert_array_equal(counts, batch.mask.sum(axis=1))

        @jax.jit
        def total(gate, row_sums=row_sums):
            return row_sums(params, base, batch, direction, gate)[0].sum()

        value, slope = jax.jit(jax.value_and_grad(total))(jnp.zeros(3))
        np.testing.assert_allclose(value, sum(sums), rtol=1e-5)
        np.testing.assert_allclose(slope, aligned, rtol=1e-4, atol=1e-4)


def test_weights_have_mean_one_and_keep_their_bounds():
    config = EmclConfig(curriculum="reweight", bound=1.5, floor=0.2)
    memory = init_memory(config, TASKS, jax.random.key(0), examples=EXAMPLES)
    seen = RowsSeen(jnp.asarray([0, 0, 1, 1]), 10 * jax.random.normal(jax.random.key(1), (4, 5)))
    equal = row_weights(config, memory.eta, seen, jnp.float32(-1.0))
    np.testing.assert_allclose(equal, 1.0, rtol=1e-6)
    eta = memory.eta | {"amount": jnp.asarray([100.0, -100.0])}
    weights = row_weights(config, eta, seen, jnp.float32(0.0))
    assert float(weights.mean()) == pytest.approx(1.0, abs=1e-6)
    assert float(weights.min()) >= 0.2
    most = float((weights.max() - 0.2) / (weights.min() - 0.2))
    assert most == pytest.approx(np.exp(2 * 1.5), rel=1e-4)
    onset = memory.eta | {"onset": jnp.asarray([-1.0, 1.0])}
    early, late = (row_weights(config, onset, seen, jnp.float32(t)) for t in (-1.0, 1.0))
    assert early[0] > 1 > early[2]
    assert late[0] < 1 < late[2]


def test_influences_are_remembered_in_units_of_their_spread():
    config = EmclConfig(curriculum="reweight")
    table = init_memory(config, TASKS, jax.random.key(0), examples=4).visits
    once = visited(table, jnp.asarray([2, 0]), jnp.asarray([1.0, 2.0]), jnp.asarray([3.0, -3.0]))
    np.testing.assert_allclose(once.influence, [-1, 0, 1, 0])
    np.testing.assert_allclose(once.loss, [2, 0, 1, 0])
    twice = visited(once, jnp.asarray([2, 1]), jnp.asarray([0.5, 1.0]), jnp.asarray([0.0, 4.0]))
    scale = np.sqrt(0.9 * 9 + 0.1 * 8)
    np.testing.assert_allclose(twice.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(twice.influence, [-1, min(3, 4 / scale), 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(twice.count, [1, 1, 2, 0])


# Points on a line: an example is a point, one number trains, held-out points lie at 0.


def line(params, frozen, batch: Batch):
    each = 0.5 * (params - batch.tokens[:, 0]) ** 2
    weight = jnp.ones_like(each) if batch.weight is None else batch.weight
    return Mean((weight * each).sum(), weight.sum()), {}


def spoilt(step: int, far: float = 3.0) -> Episode:
    """Half of the support, each second row, lies far off; the same rows at each step."""
    random = np.random.default_rng([step, 1])
    support = 0.3 * random.normal(size=(2, K, ROWS, 1)).astype("float32")
    support[:, :, 1::2] += far
    query = 0.3 * random.normal(size=(2, ROWS, 1)).astype("float32")
    task = np.broadcast_to(np.arange(2, dtype=np.int32)[:, None, None], (2, K, ROWS))
    example = np.arange(EXAMPLES, dtype=np.int32).reshape(2, K, ROWS)
    rows = Batch(*[support] * 5, task=task, example=example)
    return Episode(rows, Batch(*[query] * 5, task=task[:, 0]))


def begun(config: EmclConfig, params, optimizer):
    memory = init_memory(config, TASKS, jax.random.key(3), examples=EXAMPLES)
    return init_state(params, optimizer, 2, memory)


def settings(mode: str, **more) -> EmclConfig:
    given = {"inner_steps": K, "inner_learning_rate": 0.05, "learnt_rate": 0.1} | more
    return EmclConfig(**{"curriculum": "reweight", "mode": mode} | given)


@pytest.mark.parametrize("mode", ["first_order", "mixflow"])
def test_what_does_not_help_comes_to_train_less(mode):
    optimizer, ends = optax.sgd(0.02), {}
    good = np.tile([True, False], EXAMPLES // 2)
    for rate in (0.1, 1e-9):
        config = settings(mode, learnt_rate=rate, carry=True)
        step = jax.jit(emcl_step(config, line, optimizer, TASKS, 20))
        state = begun(config, jnp.float32(1.0), optimizer)
        for number in range(20):
            state, metrics = step(state, {}, spoilt(number))
        influence = np.asarray(state.memory.visits.influence)
        assert np.mean(influence[good][:, None] > influence[~good]) > 0.8
        ends[rate] = float(state.params), float(metrics["effective_share"].total)
    assert ends[0.1][0] < ends[1e-9][0] - 0.05
    assert ends[0.1][1] < 0.8 < 0.999 < ends[1e-9][1]


def test_the_alignment_is_the_limit_of_the_exact_gradient_for_small_steps():
    optimizer, drawn, slopes = optax.sgd(0.1), spoilt(0), {}
    for mode in ("first_order", "mixflow"):
        config = settings(mode, inner_learning_rate=1e-4, query_trains=False)
        state = begun(config, jnp.float32(1.0), optimizer)
        eta = state.memory.eta | {"amount": jnp.asarray([0.3, -0.2])}
        eta["scorer"] = eta["scorer"] | {"out": jnp.linspace(-0.5, 0.5, config.scorer_width)}
        state = state._replace(memory=state.memory._replace(eta=eta))
        after, _ = jax.jit(emcl_step(config, line, optimizer, TASKS, 9))(state, {}, drawn)
        slopes[mode] = np.concatenate(
            [np.ravel(x) for x in jax.tree.leaves(after.memory.eta_state[0].mu)]
        )
    found, exact = slopes["first_order"], slopes["mixflow"]
    # The one is of a batch of all rows, the other of K halves: the same direction, near enough.
    cosine = found @ exact / np.linalg.norm(found) / np.linalg.norm(exact)
    assert cosine > 0.9


def test_one_aligned_step_by_hand():
    config, optimizer = settings("first_order"), optax.sgd(0.1)
    drawn = spoilt(4)
    state = begun(config, jnp.float32(1.0), optimizer)
    after, metrics = jax.jit(emcl_step(config, line, optimizer, TASKS, 9))(state, {}, drawn)
    x, y = (side.tokens.reshape(-1) for side in drawn)
    mean = (1.0 - np.concatenate([x, y])).mean()
    assert float(after.params) == pytest.approx(1.0 - 0.1 * mean, rel=1e-5)
    aligned = (1.0 - x) * np.sign((1.0 - y).mean())
    # With all weights 1: d/d amount_t of -<weighted mean gradient, direction>.
    own = np.repeat([0, 1], K * ROWS)
    expected = [-0.95 * ((aligned - aligned.mean()) * (own == t)).sum() / len(x) for t in (0, 1)]
    np.testing.assert_allclose(
        after.memory.eta_state[0].mu["amount"], 0.1 * np.asarray(expected), rtol=1e-4, atol=1e-7
    )
    scale = np.sqrt(np.mean((aligned - aligned.mean()) ** 2))
    np.testing.assert_allclose(
        after.memory.visits.influence, (aligned - aligned.mean()) / scale, rtol=1e-4, atol=1e-6
    )
    task_losses = 0.5 * ((1.0 - drawn.query.tokens) ** 2).mean(axis=(1, 2))
    assert float(metrics["difficulty/second"].total) == pytest.approx(task_losses[1], rel=1e-5)


@pytest.mark.parametrize("mode", ["first_order", "mixflow"])
def test_eight_devices_are_one_and_a_checkpoint_holds_the_table(mode, tmp_path):
    config, optimizer = settings(mode, carry=True), optax.adam(1e-2, eps_root=1e-8)
    step = jax.jit(emcl_step(config, line, optimizer, TASKS, 4))

    def on(mesh):
        state = jax.device_put(begun(config, jnp.float32(1.0), optimizer), replicated(mesh))
        for number in range(2):
            state, _ = step(state, {}, put_episode(mesh, EpisodeSettings(), spoilt(number)))
        return state

    one, eight = (
        on(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])),
        on(make_mesh(MeshConfig(2, 2, 1), jax.devices()[:4])),
    )
    with closing(Checkpoints(tmp_path, 1)) as checkpoints:
        checkpoints.save(2, one, {"step": 2}, {})
        checkpoints.wait()
        again, _ = checkpoints.restore(begun(config, jnp.float32(1.0), optimizer))
    jax.tree.map(np.testing.assert_array_equal, one.memory, again.memory)
    assert np.all(one.memory.visits.count == 2)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        (one.params, one.memory),
        (eight.params, eight.memory),
    )


def test_a_mode_without_a_gradient_is_refused():
    with pytest.raises(InputError, match="'first_order'"):
        EmclConfig(curriculum="reweight", mode="reptile")

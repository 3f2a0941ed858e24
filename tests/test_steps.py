"""A step is the same step however its batch is divided: microbatches, devices, compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, LORA, batch_of, documents, stirred, tiny

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import Layout, MeshConfig, make_mesh, parameter_sharding
from hen_jax.core.trees import flatten, map_with_path
from hen_jax.models.decoder import abstract, split
from hen_jax.steps.sft import sft_loss
from hen_jax.steps.state import init_state
from hen_jax.steps.update import update_step
from hen_jax.training.placement import initial_state, parameter_shardings, placed, to_devices


def batch():
    rows = [documents([5 + row, 6], seed=row) for row in range(8)]
    return batch_of(rows, 24)


def assert_close(one, other, **bounds):
    for path, leaf in flatten(one).items():
        np.testing.assert_allclose(leaf, flatten(other)[path], err_msg=path, **bounds)


@pytest.mark.parametrize("microbatches", [2, 4, 8])
def test_microbatches_change_nothing_but_memory(microbatches):
    parts = tiny(LORA)
    adapter, optimizer, loss = stirred(parts.adapter), optax.sgd(1.0), sft_loss(parts.graphdef)
    state = init_state(adapter, optimizer, 0)
    rows = batch()
    whole, metrics = jax.jit(update_step(loss, optimizer))(state, parts.base, rows)
    step = jax.jit(update_step(loss, optimizer, microbatches))
    divided, sums = step(state, parts.base, rows)
    assert_close(whole.params, divided.params, atol=2e-6)
    for name in metrics:
        np.testing.assert_allclose(sums[name].total, metrics[name].total, rtol=1e-5)
    assert float(metrics["loss"].count) == float(batch().mask.sum())


@pytest.mark.parametrize(
    ("mesh", "microbatches"),
    [
        (MeshConfig(data=8), 1),
        (MeshConfig(fsdp=4, tensor=2, data=1), 2),
        (MeshConfig(data=2, fsdp=2, tensor=2), 1),
    ],
    ids=["data", "fsdp-tensor-microbatches", "data-fsdp-tensor"],
)
@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_eight_devices_step_as_one_does(mesh, microbatches, full):
    parts = tiny(None if full else LORA)
    params, frozen = (parts.base, {}) if full else (stirred(parts.adapter), parts.base)
    optimizer = optax.adamw(1e-2)
    step = update_step(sft_loss(parts.graphdef), optimizer)
    alone, metrics = jax.jit(step)(init_state(params, optimizer, 0), frozen, batch())

    devices = make_mesh(mesh)
    model = abstract(CONFIG, None if full else LORA, layout=Layout(devices))
    shardings = parameter_shardings(model, devices)
    trainable = map_with_path(lambda path, x: jax.device_put(x, shardings[path]), params)
    base = map_with_path(lambda path, x: jax.device_put(x, shardings[path]), frozen)
    state = initial_state(trainable, optimizer, 0, devices)
    put = to_devices(devices)(jax.tree.map(np.asarray, batch()))
    # What a run jits: parameters gathered where they are used, rows kept where they are.
    spread_step = update_step(sft_loss(split(model).graphdef), optimizer, microbatches)
    spread, sums = placed(spread_step, state)(state, base, put)

    np.testing.assert_allclose(sums["loss"].total, float(metrics["loss"].total), rtol=1e-5)
    assert_close(jax.device_get(alone.params), jax.device_get(spread.params), atol=1e-4)
    spread_over = {a for x in jax.tree.leaves((trainable, base)) for a in x.sharding.spec if a}
    assert spread_over >= {axis for axis in ("fsdp", "tensor") if devices.shape[axis] > 1}


def test_moments_live_where_their_parameters_do():
    devices = make_mesh(MeshConfig(data=2, fsdp=4))
    shardings = parameter_shardings(abstract(CONFIG), devices)
    placed = map_with_path(lambda p, x: jax.device_put(x, shardings[p]), tiny().base)
    state = initial_state(placed, optax.adamw(1e-2), 0, devices)
    for path, leaf in flatten(state.opt_state[0].mu).items():
        assert leaf.sharding == shardings[path]


@pytest.mark.slow  # compiles for long
def test_jit_changes_nothing():
    parts = tiny()
    optimizer = optax.sgd(0.1)
    step = update_step(sft_loss(parts.graphdef), optimizer)
    state = init_state(parts.base, optimizer, 0)
    rows = batch()
    plain, _ = step(state, {}, rows)
    jitted, _ = jax.jit(step)(state, {}, rows)
    assert_close(plain.params, jitted.params, atol=1e-6)


def test_a_row_weight_scales_its_sum_and_its_count():
    parts = tiny()
    loss = jax.jit(sft_loss(parts.graphdef))
    rows = batch()
    weighted, _ = loss(parts.base, {}, rows._replace(weight=jnp.array([2.0] + [0.0] * 7)))
    first, _ = loss(parts.base, {}, jax.tree.map(lambda x: x[:1], rows))
    np.testing.assert_allclose(weighted.total, 2 * first.total, rtol=1e-5)
    np.testing.assert_allclose(weighted.count, 2 * first.count)


def test_a_mesh_that_does_not_fit_and_an_axis_without_a_rule_are_named():
    with pytest.raises(InputError, match="there are 8 devices"):
        make_mesh(MeshConfig(data=3, fsdp=2))
    with pytest.raises(InputError, match="'experts'"):
        parameter_sharding(("experts",), (4,), make_mesh(MeshConfig()))

"""Experts trained together are experts trained apart, each untouched by the others' rows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import CONFIG, batch_of, documents, stirred, tiny

from hen_jax.adapters.experts import NOBODY, expert_gate, joint_adapter, joint_lora, one_hot
from hen_jax.core.errors import InputError
from hen_jax.core.mesh import Layout, MeshConfig, make_mesh
from hen_jax.core.trees import flatten, map_with_path
from hen_jax.data.joined import JoinedBatches, Stream, join_all, join_batches
from hen_jax.data.pipeline import PipelineConfig, train_batches
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.models.layers import Linear
from hen_jax.steps.experts import experts_loss, experts_step, loss_of
from hen_jax.steps.sft import sft_loss
from hen_jax.steps.state import init_state
from hen_jax.steps.update import update_step
from hen_jax.training.guards import GuardConfig, guard, reporting
from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
from hen_jax.training.placement import initial_state, parameter_shardings, placed, to_devices

PLAIN = Execution(remat="none")
LORAS = {"calm": LoraConfig(2, 6.0), "brisk": LoraConfig(1, 0.5), "warm": LoraConfig(3, 3.0)}
JOINT = split(abstract(CONFIG, joint_lora(LORAS), PLAIN)).graphdef


def experts():
    return {
        name: stirred(tiny(lora).adapter, seed)
        for seed, (name, lora) in enumerate(LORAS.items(), start=3)
    }


def parts(step: int):
    """Rows of each expert, of unequal lengths; `brisk` has none in step 1."""
    rows = {
        "calm": [documents([9, 6], 10 * step), documents([4], 10 * step + 1)],
        "brisk": [documents([20], 10 * step + 2), documents([15, 3], 10 * step + 3)],
        "warm": [documents([3], 10 * step + 4), documents([2, 5], 10 * step + 5)],
    }
    found = {name: jax.tree.map(np.asarray, batch_of(two, 24)) for name, two in rows.items()}
    return found | ({"brisk": None} if step == 1 else {})


def joined(step: int):
    return join_batches(dict(enumerate(parts(step).values())))


def optimizer(steps: int):
    # With a small eps Adam makes whole steps of the rounding of a gradient that is nearly 0.
    config = OptimizerConfig(0.05, warmup=0.0, clip_norm=0.02, weight_decay=0.1, eps=1e-2)
    return guard(make_optimizer(config, make_schedule(config, steps)), GuardConfig())


OPTIMIZERS = {name: optimizer(steps) for name, steps in zip(LORAS, (3, 2, 5), strict=True)}


def together(microbatches: int = 1):
    return reporting(experts_step(experts_loss(JOINT, LORAS), OPTIMIZERS, microbatches))


@pytest.fixture(scope="module")
def three_steps():
    """The states after each of three updates of all, and their metrics."""
    base, step = tiny().base, jax.jit(together())
    states, found = [init_state(experts(), OPTIMIZERS, 0)], []
    for number in range(3):
        state, metrics = step(states[-1], base, joined(number))
        states.append(state)
        found.append(metrics)
    return states, found


def assert_close(one, other, **bounds):
    one, other = flatten(one), flatten(other)
    assert one.keys() == other.keys()
    for path, leaf in one.items():
        np.testing.assert_allclose(leaf, other[path], err_msg=path, **bounds)


@pytest.mark.parametrize("name", ["calm", "brisk"])
def test_together_is_as_apart(three_steps, name):
    """Unequal ranks, scales, rates and token counts, clipping active, one absent from a batch."""
    graphdef = split(abstract(CONFIG, LORAS[name], PLAIN)).graphdef
    alone, own = init_state(experts()[name], OPTIMIZERS[name], 0), 0
    step = jax.jit(update_step(sft_loss(graphdef), OPTIMIZERS[name]))
    states, found = three_steps
    for number in range(3):
        mine = parts(number)[name]
        if mine is not None:
            alone, metrics = step(alone, tiny().base, mine)
            assert float(metrics["grad_norm"].value) > 0.02  # so that it is clipped
            loss = found[number][loss_of(name)]
            np.testing.assert_allclose(loss.value, metrics["loss"].value, rtol=1e-5)
            own += 1
        assert_close(states[number + 1].params[name], alone.params, rtol=1e-5, atol=1e-5)
        assert int(states[number + 1].opt_state[name].good) == own


def test_an_absent_expert_keeps_every_bit(three_steps):
    states, found = three_steps
    before, after = ((s.params["brisk"], s.opt_state["brisk"]) for s in states[1:3])
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert float(found[1][loss_of("brisk")].count) == 0
    assert float(found[1]["skipped"].total) == 0


@pytest.mark.slow  # four more programs; what is narrow is only read
@pytest.mark.parametrize("base", ["int8", "bfloat16"])
def test_together_is_as_apart_on_a_narrow_base(base):
    """One update on a base in eight bits, or in bfloat16."""
    execution = Execution(remat="none", base_dtype="int8" if base == "int8" else "stored")
    frozen = tiny(execution=execution).base
    if base == "bfloat16":
        frozen = jax.tree.map(lambda leaf: leaf.astype(base), frozen)
    graphdef = split(abstract(CONFIG, joint_lora(LORAS), execution)).graphdef
    step = jax.jit(experts_step(experts_loss(graphdef, LORAS), OPTIMIZERS))
    ours, _ = step(init_state(experts(), OPTIMIZERS, 0), frozen, joined(0))
    graphdef = split(abstract(CONFIG, LORAS["warm"], execution)).graphdef
    alone = jax.jit(update_step(sft_loss(graphdef), OPTIMIZERS["warm"]))
    state = init_state(experts()["warm"], OPTIMIZERS["warm"], 0)
    theirs, _ = alone(state, frozen, parts(0)["warm"])
    assert_close(ours.params["warm"], theirs.params, rtol=1e-5, atol=1e-5)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), theirs.params, experts()["warm"])
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_the_loss_of_all_is_over_all_their_tokens(three_steps):
    _, found = three_steps
    own = [found[0][loss_of(name)] for name in LORAS]
    assert float(found[0]["loss"].count) == joined(0).mask.sum()
    np.testing.assert_allclose(found[0]["loss"].total, sum(m.total for m in own), rtol=1e-6)


@pytest.mark.slow  # compiles for long
def test_microbatches_and_devices_change_nothing(three_steps):
    states, _ = three_steps
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4])
    model = abstract(CONFIG, joint_lora(LORAS), PLAIN, Layout(mesh))
    shardings = parameter_shardings(model, mesh)
    place = partial(map_with_path, lambda path, leaf: jax.device_put(leaf, shardings[path]))
    params = {name: place(tree) for name, tree in experts().items()}
    state = initial_state(params, OPTIMIZERS, 0, mesh)
    loss = experts_loss(split(model).graphdef, LORAS)
    step = placed(reporting(experts_step(loss, OPTIMIZERS, 3)), state)
    state, metrics = step(state, place(tiny().base), to_devices(mesh)(joined(0)))
    assert_close(state.params, states[1].params, rtol=2e-4, atol=2e-5)
    assert float(metrics["loss"].count) == joined(0).mask.sum()


def test_each_row_is_answered_by_its_own_expert_and_none_by_the_base():
    base, own = tiny().base, experts()
    rows = batch_of([documents([7], seed) for seed in range(3)], 8)
    expert = jnp.array([2, NOBODY, 0])
    gate = expert_gate(list(LORAS.values()), one_hot(expert, 3))
    place = rows.tokens, rows.positions, rows.segments
    found = merge(JOINT, joint_adapter(list(own.values())), base).hidden(*place, gate=gate)
    for row, name in enumerate(["warm", None, "calm"]):
        lora = None if name is None else LORAS[name]
        graphdef = split(abstract(CONFIG, lora, PLAIN)).graphdef
        leaves = base if name is None else (base, own[name])
        model = merge(graphdef, *(leaves if name else (base,)))
        np.testing.assert_allclose(found[row], model.hidden(*place)[row], atol=1e-5)


def test_the_gate_mixes_experts_by_their_weights():
    rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=(1, 2, 5))
    loras = [LoraConfig(2, 6.0), LoraConfig(1, 5.0)]
    np.testing.assert_array_equal(
        expert_gate(loras, jnp.array([[1.0, 0.0], [0.5, 2.0]]))[:, 0], [[3, 3, 0], [1.5, 1.5, 10]]
    )
    layer = Linear(jax.random.key(0), (5, 4), ("embed", "mlp"), LoraConfig(3), jnp.dtype("float32"))
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 4))
    layer.lora_a[...], layer.lora_b[...] = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    found = layer(jnp.asarray(x, jnp.float32), gate=expert_gate(loras, jnp.array([[0.25, 0.75]])))
    kernel = np.asarray(layer.kernel[...])
    wanted = x @ kernel + 0.75 * x @ a[:, :2] @ b[:2] + 3.75 * x @ a[:, 2:] @ b[2:]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_joined_batches_are_those_of_each_stream_and_know_their_place():
    config = PipelineConfig(row_length=24, batch_size=2, prefetch=0)
    sets = documents([5] * 9, 1), documents([20] * 5, 2)

    def streams():
        own = [train_batches(one, config) for one in sets]
        return [Stream(4, 2, own[0]), Stream(1, 3, own[1])]

    found = [next(both) for both in [JoinedBatches(streams())] for _ in range(3)]
    alone = [[next(one.batches) for _ in range(3)] for one in streams()]
    for number, batch in enumerate(found):
        assert batch.expert.tolist() == [4, 4, 1, 1]
        np.testing.assert_array_equal(batch.tokens[2:], alone[1][number].tokens)
    np.testing.assert_array_equal(found[1].mask[:2], alone[0][1].mask)
    assert not found[2].mask[:2].any()  # the first has had its two
    again = JoinedBatches(streams())
    again.set_state({"next_index": 1})
    np.testing.assert_array_equal(next(again).tokens, found[1].tokens)
    assert again.get_state() == {"next_index": 2}
    evaluated = list(join_all({4: iter(alone[0][:1]), 1: iter(alone[1])}))
    assert len(evaluated) == 3
    assert not evaluated[2].mask[:2].any()
    np.testing.assert_array_equal(evaluated[2].tokens[2:], alone[1][2].tokens)


def test_experts_that_cannot_stand_side_by_side_are_refused():
    with pytest.raises(InputError, match="no expert; name at least one"):
        joint_lora({})
    with pytest.raises(InputError, match="differ in their targets"):
        joint_lora({"a": LoraConfig(2), "b": LoraConfig(2, targets=("q",))})

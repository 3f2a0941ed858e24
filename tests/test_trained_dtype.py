"""What trains is float32 unless bfloat16 is asked for, and then small updates add up."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_run import config, open_job, run

from hen_jax.core.errors import InputError
from hen_jax.core.types import Batch, Mean
from hen_jax.planning.topologies import Topology
from hen_jax.recipes import sft
from hen_jax.recipes.emcl_settings import EmclSettings
from hen_jax.runs.abstract import placed_model
from hen_jax.runs.export.trained import open_trained
from hen_jax.runs.settings import settings
from hen_jax.runs.tiny_model import write_tiny_model
from hen_jax.steps.rounding import apply_updates, stochastically_rounded
from hen_jax.steps.state import init_state
from hen_jax.steps.update import update_step

DRAWS = 20_000


@pytest.fixture(scope="module")
def bfloat16_base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, "bfloat16")
    return folder


def drawn(value: float, seed: int = 0) -> np.ndarray:
    x = jnp.full(DRAWS, value, jnp.float32)
    return np.asarray(stochastically_rounded(x, jax.random.key(seed)), np.float64)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("low", [1.0, -1.0, 2.0**-100, -3.0 * 2**40])
def test_rounding_goes_to_a_neighbour_and_its_mean_is_the_number(low, share):
    gap = np.sign(low) * 2.0 ** (np.floor(np.log2(abs(low))) - 7)  # bfloat16 keeps 7 bits
    found = drawn(low + share * gap)
    assert set(found) <= {low, low + gap}
    up = (found != low).mean()
    assert abs(up - share) <= 5 * np.sqrt(share * (1 - share) / DRAWS)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan])
def test_what_bfloat16_holds_stays_as_it_is(value):
    np.testing.assert_array_equal(drawn(value), np.full(DRAWS, value))
    odd = jax.lax.bitcast_convert_type(jnp.uint32(0x7F800001), jnp.float32)  # NaN by its last bit
    assert np.isnan(stochastically_rounded(odd, jax.random.key(0)))


def test_the_same_key_rounds_alike_and_no_two_leaves_do():
    assert (drawn(1.004) == drawn(1.004)).all()
    assert (drawn(1.004, 0) != drawn(1.004, 1)).any()
    params = {name: jnp.ones(DRAWS, jnp.bfloat16) for name in "ab"}
    found = apply_updates(params, {n: jnp.full(DRAWS, 0.004) for n in "ab"}, jax.random.key(0))
    assert found["a"].dtype == jnp.bfloat16
    assert (found["a"] != found["b"]).any()


def slope(params, frozen, batch):
    """A loss whose gradient is 1 everywhere."""
    return Mean(params["w"].astype(jnp.float32).sum(), jnp.ones(())), {}


def batch_of_one() -> Batch:
    return Batch(*(np.zeros((1, 1), np.int32),) * 5)


def test_updates_far_below_the_gap_of_bfloat16_add_up():
    optimizer = optax.adam(1e-4)  # each step 1e-4, the gap below 1 is 4e-3
    state = init_state({"w": jnp.ones(DRAWS, jnp.bfloat16)}, optimizer, 0)
    before = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    step = jax.jit(update_step(slope, optimizer))
    for _ in range(10):
        state, _ = step(state, {}, batch_of_one())
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == before
    assert state.opt_state[0].nu["w"].dtype == jnp.float32
    moved = 1 - np.asarray(state.params["w"], np.float64).mean()
    assert moved == pytest.approx(1e-3, rel=0.1)  # to the nearest it would be 0
    again, _ = step(
        init_state({"w": jnp.ones(DRAWS, jnp.bfloat16)}, optimizer, 0), {}, batch_of_one()
    )
    other, _ = step(
        state._replace(params=jax.tree.map(jnp.ones_like, state.params)), {}, batch_of_one()
    )
    assert (again.params["w"] != other.params["w"]).any()  # each step rounds by its own draws


def test_an_optimizer_sees_float32_and_sums_of_microbatches_lose_nothing():
    seen = []

    def update(updates, state, params=None):
        seen.extend((updates["w"], params["w"]))
        return updates, state

    def loss(params, frozen, batch):
        return Mean((params["w"].astype(jnp.float32) * batch.weight).sum(), jnp.ones(())), {}

    optimizer = optax.GradientTransformation(lambda params: (), update)
    state = init_state({"w": jnp.ones((), jnp.bfloat16)}, optimizer, 0)
    small = 2.0**-9  # bfloat16 holds it, but no sum of it and 1
    rows = Batch(*(np.zeros((4, 1), np.int32),) * 5, weight=np.float32([1, small, small, small]))
    update_step(loss, optimizer, microbatches=4)(state, {}, rows)
    assert [leaf.dtype for leaf in seen] == [jnp.float32, jnp.float32]
    assert float(seen[0]) == (1 + 3 * small) / 4


def test_float16_is_refused_before_it_becomes_nan():
    with pytest.raises(InputError, match="w is float16, which cannot be trained"):
        init_state({"w": jnp.ones(3, jnp.float16)}, optax.adam(1e-3), 0)


def full(base, **model):
    return config(base, adapter=None, model={"source": str(base)} | model)


@pytest.mark.parametrize(
    ("model", "held"),
    [
        ({}, "float32"),
        ({"dtype": "float32"}, "float32"),
        ({"trained_dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_a_bfloat16_checkpoint_trains_in_the_dtype_that_the_config_names(
    bfloat16_base, tmp_path, model, held
):
    fields = full(bfloat16_base, **model).to_dict()
    session = open_job(bfloat16_base, tmp_path / "run", **fields)
    parsed = session.settings
    planned = placed_model(parsed, Topology("here", "v5e", "2x4", 1, tuple(jax.devices())))
    for tree in (session.trainable, planned.trainable):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(held)}


def test_an_adapter_is_float32_over_a_base_as_it_is_stored(bfloat16_base, tmp_path):
    session = open_job(bfloat16_base, tmp_path / "run")
    assert {leaf.dtype for leaf in jax.tree.leaves(session.trainable)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(session.frozen)} == {jnp.dtype("bfloat16")}


def test_a_whole_model_in_bfloat16_comes_back_as_it_was_trained(bfloat16_base, tmp_path):
    one = full(bfloat16_base, trained_dtype="bfloat16")
    one.epochs = 0.02
    state = run(bfloat16_base, tmp_path / "run", **one.to_dict())
    found = open_trained(tmp_path / "run").params
    for ours, back in zip(jax.tree.leaves(state.params), jax.tree.leaves(found), strict=True):
        assert back.dtype == jnp.bfloat16
        np.testing.assert_array_equal(jax.device_get(back), jax.device_get(ours))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "bfloat16"}, r"config\.model\.dtype is 'bfloat16', but all parameters train"),
        ({"dtype": "float16"}, r"config\.model\.dtype is 'float16', but all parameters train"),
        ({"dtype": "float8"}, r"config\.model\.dtype is 'float8'; allowed: 'float32', 'bfloat16'"),
        ({"trained_dtype": "float16"}, r"config\.model\.trained_dtype is 'float16'; allowed"),
    ],
)
def test_dtypes_that_contradict_each_other_are_refused_before_anything_is_read(change, message):
    with pytest.raises(InputError, match=message):
        settings(sft.SftSettings, full("nowhere", **change))


def test_adapters_and_meta_gradients_keep_float32():
    narrow = {"source": "nowhere", "trained_dtype": "bfloat16"}
    with pytest.raises(InputError, match=r"config\.model\.trained_dtype .* with an adapter"):
        settings(sft.SftSettings, config("nowhere", model=narrow))
    node = {"recipe": "emcl", "model": narrow, "sources": (), "tasks": ("SER",), "steps": 1}
    node["optimizer"] = {"learning_rate": 1e-3}
    with pytest.raises(InputError, match=r"config\.model\.trained_dtype .* need 'float32'"):
        settings(EmclSettings, node)

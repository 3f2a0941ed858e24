"""Updates that are left out, and the alarms of a run: heard when they should be, and only then."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hen_jax.core.errors import LOST
from hen_jax.core.trees import flatten
from hen_jax.core.types import Batch, Mean
from hen_jax.steps.state import init_state
from hen_jax.steps.update import update_step
from hen_jax.training.compiles import compilations
from hen_jax.training.guards import GuardConfig, guard, reporting
from hen_jax.training.watchdog import watchdog


def assert_same(first, second):
    first, second = flatten(first), flatten(second)
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, second[path], err_msg=path)


# One parameter that a batch's tokens pull at; a batch of zeros gives the gradient 0 / 0.
def pull(params, frozen, batch):
    scale = batch.tokens.astype(jnp.float32).sum()
    loss = (params["w"] ** 2).sum() * scale * scale / scale
    one = jnp.ones((), jnp.float32)
    return Mean(loss, one), {}


def guarded_run(tokens: list[int], config: GuardConfig):
    """Steps over batches of one token each; the states and how many were skipped in a row."""
    optimizer = guard(optax.adam(0.1), config)
    step = jax.jit(reporting(update_step(pull, optimizer)))
    state = init_state({"w": jnp.ones(3)}, optimizer, 0)
    states, skipped = [state], []
    for token in tokens:
        batch = batch_of(token)
        state, metrics = step(state, {}, batch)
        states.append(state)
        skipped.append(float(metrics["skipped"].total))
    return states, skipped


def batch_of(token: int):
    return Batch(
        *(
            np.full((1, 1), token, kind)
            for kind in (np.int32, np.int32, np.float32, np.int32, np.int32)
        )
    )


def test_an_update_without_a_finite_gradient_leaves_no_trace():
    states, skipped = guarded_run([1, 0, 0, 2], GuardConfig())
    assert skipped == [0, 1, 2, 0]
    for before, after in ((states[1], states[2]), (states[2], states[3])):
        assert_same(before.params, after.params)
        assert_same(before.opt_state.inner, after.opt_state.inner)
    clean, _ = guarded_run([1, 2], GuardConfig())
    assert_same(states[-1].params, clean[-1].params)


def test_a_spike_is_skipped_once_it_is_known_what_is_usual():
    usual = [10] * 5
    _, skipped = guarded_run([*usual, 1000, 11], GuardConfig(spike=5.0, warmup=4))
    assert skipped == [0, 0, 0, 0, 0, 1, 0]
    _, skipped = guarded_run([*usual, 1000], GuardConfig(spike=5.0, warmup=6))
    assert not any(skipped)


def test_a_guard_changes_nothing_while_all_is_well():
    plain = optax.adam(0.1)
    step = jax.jit(update_step(pull, plain))
    state = init_state({"w": jnp.ones(3)}, plain, 0)
    for token in (1, 2, 3):
        state, _ = step(state, {}, batch_of(token))
    guarded, _ = guarded_run([1, 2, 3], GuardConfig(spike=100.0))
    assert_same(guarded[-1].params, state.params)


def test_a_second_compilation_raises_the_alarm(capsys):
    def step(x):
        return x + 1

    jitted = jax.jit(step)
    with compilations("step") as made:
        jitted(np.ones(3))
        jitted(np.ones(3))
        assert made().count == 1
        assert capsys.readouterr().err == ""
        jitted(np.ones(4))
        assert made().count == 2
    assert "WARNING: step was compiled again" in capsys.readouterr().err
    jitted(np.ones(5))
    assert capsys.readouterr().err == ""


def test_the_watchdog_ends_a_run_that_hangs_and_no_other(capfd):
    codes = []
    with watchdog(0.2, codes.append) as alive:
        for _ in range(10):
            time.sleep(0.05)
            alive()
        assert codes == []
        time.sleep(0.5)
    assert codes == [LOST]
    said = capfd.readouterr().err
    assert "no step ended in 0.2 s" in said
    assert "test_guards.py" in said  # where it hangs

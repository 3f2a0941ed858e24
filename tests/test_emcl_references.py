"""One EMCL step against numpy in float64: quadratics, a momentum that must not be lost."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_emcl import ALPHA, CURVATURES, TASKS, K, N, begun, points, quadratic

from hen_jax.curricula.emcl import emcl_step
from hen_jax.curricula.shared import EmclConfig, evaluation

RATE, DECAY, SHRINKING = 0.05, 0.9, 0.1
MOMENTUM = optax.chain(optax.add_decayed_weights(SHRINKING), optax.sgd(RATE, momentum=DECAY))
C = CURVATURES.astype(np.float64)


class Point(NamedTuple):
    theta: float
    momentum: float = 0.0


def descended(at: Point, slope: float, carry: bool = True) -> Point:
    if not carry:
        return Point(at.theta - ALPHA * slope, 0.0)
    momentum = DECAY * at.momentum + slope + SHRINKING * at.theta
    return Point(at.theta - RATE * momentum, momentum)


def slope_of(value, at: float) -> float:
    """Central differences; exact to rounding, as everything here is a quadratic of theta."""
    return (value(at + 1e-3) - value(at - 1e-3)) / 2e-3


def query_losses(theta: float, query) -> np.ndarray:
    return (C[:, None] / 2 * (theta - query.tokens[:, :, 0]) ** 2).mean(1)


def adapted(at: Point, task: int, support, carry: bool) -> Point:
    for k in range(K):
        at = descended(at, C[task] * (at.theta - support.tokens[task, k].mean()), carry)
    return at


def trace_of(state) -> float:
    return float(state.opt_state[1][0].trace)


def begun_once(config, features=None, seed: int = 1):
    """The step, and a state whose momentum is not zero."""
    step = jax.jit(emcl_step(config, quadratic, MOMENTUM, TASKS, 4, features))
    state = begun(config, jnp.float32(2.0), MOMENTUM)
    if config.curriculum == "emcl_c":
        draw = np.random.default_rng(0).normal
        eta = jax.tree.map(lambda leaf: np.float32(draw(size=leaf.shape)), state.memory.eta)
        state = state._replace(memory=state.memory._replace(eta=eta))
    state, _ = step(state, {}, points(seed))
    return step, state, Point(float(state.params), trace_of(state))


def assert_ends(state, expected: Point) -> None:
    assert float(state.params) == pytest.approx(expected.theta, rel=1e-5)
    assert trace_of(state) == pytest.approx(expected.momentum, rel=1e-4)


@pytest.mark.parametrize("carry", [False, True])
def test_a_visit_takes_the_optimizers_state_along(carry):
    config = EmclConfig(
        curriculum="hard_to_easy", initial_competence=1.0, inner_learning_rate=ALPHA, carry=carry
    )
    step, state, at = begun_once(config)
    support, query = episode = points(2)
    after, metrics = step(state, {}, episode)
    seen = []
    for task in reversed(range(N)):

        def value(theta, task=task, at=at):
            end = adapted(Point(theta, at.momentum), task, support, carry)
            return query_losses(end.theta, query)[task]

        seen.append(value(at.theta))
        start = adapted(at, task, support, carry) if carry else at
        at = descended(start, slope_of(value, at.theta))
    assert_ends(after, at)
    assert float(metrics["loss"].total) == pytest.approx(sum(seen), rel=1e-5)
    assert metrics["loss"].count == N
    assert after.step == 2


def soft_shares(order, temperature):
    distance = np.abs(np.sort(order)[:, None] - order[None])
    shares = np.exp(-distance / temperature)
    return shares / shares.sum(1, keepdims=True)


def scorer_weights(eta, tokens):
    scores = np.tanh(tokens[:, None] * eta["hidden"] + eta["bias"]) @ eta["out"]
    return np.exp(scores) / np.exp(scores).sum()


def ordered(at: Point, eta, support, carry: bool) -> Point:
    """EMCL-B."""
    shares = soft_shares(eta["order"], 0.1)
    for j in range(N):
        slopes = C * (at.theta - support.tokens[:, j % K, :, 0].mean(1))
        at = descended(at, shares[j] @ slopes, carry)
    return at


def weighed(at: Point, eta, support, carry: bool) -> Point:
    """EMCL-C."""
    for k in range(K):
        tokens, rows = support.tokens[:, k, :, 0].ravel(), np.repeat(C, 2)
        at = descended(at, scorer_weights(eta, tokens) @ (rows * (at.theta - tokens)), carry)
    return at


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize(("curriculum", "train"), [("emcl_b", ordered), ("emcl_c", weighed)])
def test_a_learnt_curriculum_follows_its_gradient_from_where_it_stands(curriculum, train, carry):
    config = EmclConfig(
        curriculum=curriculum, inner_learning_rate=ALPHA, carry=carry, scorer_width=2
    )
    step, state, at = begun_once(config, lambda params, frozen, batch: batch.tokens)
    support, query = episode = points(2)
    after, metrics = step(state, {}, episode)
    eta = jax.tree.map(np.float64, state.memory.eta)

    def value(theta, eta):
        end = train(Point(theta, at.momentum), eta, support, carry)
        return query_losses(end.theta, query).mean()

    start = train(at, eta, support, carry)
    slope = slope_of(lambda theta: value(theta, eta), at.theta)
    assert_ends(after, descended(start if carry else at, slope))
    expected = query_losses(start.theta, query)
    found = [float(metrics[f"difficulty/{task}"].total) for task in TASKS]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    averaged = 0.9 * np.float64(state.memory.difficulty) + 0.1 * expected
    np.testing.assert_allclose(after.memory.difficulty, averaged, rtol=1e-5)

    # Adam's first moment: 0.9 of what it was and a tenth of the gradient.
    for name, leaf in eta.items():
        before, moment = (np.asarray(s.memory.eta_state[0].mu[name]) for s in (state, after))
        for place in np.ndindex(leaf.shape):

            def moved(x, name=name, place=place):
                other = eta | {name: eta[name].copy()}
                other[name][place] = x
                return value(at.theta, other)

            expected = 0.9 * before[place] + 0.1 * slope_of(moved, leaf[place])
            assert moment[place] == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert_learns(config, state.memory, after.memory)
    assert_reports(curriculum, metrics, after, eta, support)


def assert_learns(config, before, after):
    """Adam's second update."""
    adam = after.eta_state[0]
    for name, leaf in before.eta.items():
        size = np.sqrt(adam.nu[name] / (1 - 0.999**2)) + 1e-8
        moved = config.learnt_rate * adam.mu[name] / (1 - 0.9**2) / size
        np.testing.assert_allclose(after.eta[name], leaf - moved, rtol=1e-5)
        assert np.abs(moved).max() > 1e-3


def assert_reports(curriculum, metrics, after, eta, support):
    place = [int(metrics[f"place/{task}"].total) for task in TASKS]
    if curriculum == "emcl_b":
        assert place == np.argsort(np.argsort(after.memory.eta["order"])).tolist()
        return
    by_step = [scorer_weights(eta, support.tokens[:, k, :, 0].ravel()) for k in range(K)]
    weights = 2 * N * np.mean(by_step, axis=0).reshape(N, 2).mean(1)
    found = [float(metrics[f"weight/{task}"].total) for task in TASKS]
    np.testing.assert_allclose(found, weights, rtol=1e-4)
    assert place == np.argsort(np.argsort(-weights)).tolist()


def test_uniform_takes_the_mean_of_the_tasks():
    config = EmclConfig(curriculum="uniform", inner_learning_rate=ALPHA)
    step, state, at = begun_once(config)
    support, query = episode = points(2)
    after, metrics = step(state, {}, episode)

    def value(theta):
        ends = [adapted(Point(theta), task, support, False).theta for task in range(N)]
        return np.mean([query_losses(end, query)[task] for task, end in enumerate(ends)])

    assert_ends(after, descended(at, slope_of(value, at.theta)))
    assert float(metrics["loss"].total) / N == pytest.approx(value(at.theta), rel=1e-5)


def test_plain_fine_tuning_sees_every_row_once():
    step, state, at = begun_once(EmclConfig(curriculum="sft"))
    support, query = episode = points(2)
    after, _ = step(state, {}, episode)
    rows = np.concatenate([support.tokens.reshape(N, -1), query.tokens.reshape(N, -1)], axis=1)
    assert_ends(after, descended(at, (C[:, None] * (at.theta - rows)).mean()))


@pytest.mark.parametrize("parallel", [False, True])
def test_an_evaluation_adapts_first(parallel):
    config = EmclConfig(inner_learning_rate=ALPHA, parallel_tasks=parallel)
    support, query = episode = points(2)
    mean, metrics = jax.jit(evaluation(config, quadratic, TASKS))(jnp.float32(2.0), {}, episode)
    ends = [adapted(Point(2.0), task, support, False).theta for task in range(N)]
    after = [query_losses(end, query)[task] for task, end in enumerate(ends)]
    before = query_losses(2.0, query)
    assert float(mean.total / mean.count) == pytest.approx(np.mean(after), rel=1e-5)
    said = metrics["before"]
    assert float(said.total / said.count) == pytest.approx(before.mean(), rel=1e-5)
    for number, task in enumerate(TASKS):
        assert float(metrics[f"loss/{task}"].total) == pytest.approx(after[number], rel=1e-5)
        assert float(metrics[f"before/{task}"].total) == pytest.approx(before[number], rel=1e-5)

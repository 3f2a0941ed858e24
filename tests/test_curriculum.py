"""What a curriculum computes, against the values it must have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hen_jax.curricula.evaluations import (
    JVP,
    EvaluationRows,
    evaluations,
    outer_updates,
    steps_within,
)
from hen_jax.curricula.shared import EmclConfig
from hen_jax.objectives.curriculum import (
    active_tasks,
    averaged_difficulty,
    competence,
    places,
    reward_weights,
    soft_sort,
)


def test_competence_admits_the_tasks_of_the_published_schedule():
    share = competence(jnp.asarray([0, 25, 50, 100]), 100, 0.1)
    np.testing.assert_allclose(share, [0.1, 0.5074, 0.7106, 1.0], atol=5e-5)
    np.testing.assert_array_equal(active_tasks(share, 4), [1, 3, 3, 4])


@pytest.mark.parametrize("tasks", [1, 4, 7, 100])
def test_rounding_admits_no_task_too_many(tasks):
    shares = jnp.arange(1, tasks + 1, dtype=jnp.float32) / tasks
    np.testing.assert_array_equal(active_tasks(shares, tasks), np.arange(1, tasks + 1))


def test_difficulty_starts_as_it_is_first_measured():
    before, now = jnp.asarray([0.0, 4.0]), jnp.asarray([2.0, 2.0])
    np.testing.assert_allclose(averaged_difficulty(before, now, 0), [2.0, 2.0])
    np.testing.assert_allclose(averaged_difficulty(before, now, 3, 0.9), [0.2, 3.8], rtol=1e-6)


def test_soft_sort_sorts_as_the_temperature_falls():
    scores = jnp.asarray([0.3, -1.0, 2.0, 0.5])
    soft = soft_sort(scores, 0.5)
    np.testing.assert_allclose(soft.sum(1), 1.0, rtol=1e-6)
    # Row 0, by hand: distances of -1 to each score.
    by_hand = np.exp(-np.array([1.3, 0.0, 3.0, 1.5]) / 0.5)
    np.testing.assert_allclose(soft[0], by_hand / by_hand.sum(), rtol=1e-5)
    hard = np.eye(4)[[1, 0, 3, 2]]
    np.testing.assert_allclose(soft_sort(scores, 1e-3), hard, atol=1e-6)
    np.testing.assert_array_equal(places(jnp.argsort(scores)), [1, 0, 3, 2])


def test_soft_sort_leads_scores_to_the_order_that_pays():
    wanted = jnp.asarray([2, 0, 1])  # the task to come at each place
    scores = jnp.asarray([0.0, 0.2, 0.4])

    @jax.jit
    @jax.grad
    def slope(scores):
        return -jnp.mean(jnp.log(soft_sort(scores, 0.3)[jnp.arange(3), wanted]))

    for _ in range(200):
        scores = scores - 0.1 * slope(scores)
    np.testing.assert_array_equal(jnp.argsort(scores), wanted)


def test_reward_weights_keep_the_mean_and_lean_to_the_better():
    np.testing.assert_allclose(reward_weights(jnp.full(5, 3.0), 0.5), 1.0, rtol=1e-6)
    weights = reward_weights(jnp.asarray([1.0, 0.0, -1.0]), 2.0)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert float(weights[0] / weights[1]) == pytest.approx(np.exp(0.5), rel=1e-5)
    assert not np.any(jax.jacobian(lambda r: reward_weights(r, 1.0))(jnp.arange(3.0)))


def test_gradient_evaluations_count_what_each_method_does():
    rows, tasks = EvaluationRows(support=1, query=2), 4

    def per_step(curriculum, **options):
        return evaluations(EmclConfig(curriculum=curriculum, **options), rows, tasks, 100)

    # K = 2 inner gradients, a jvp for each, and the query's two rows.
    learnt, measured = 2 + 2 * JVP + 2, 2 + 0.5 * 2
    all_open = {"initial_competence": 1.0}
    assert per_step("uniform")[0] == 4 * learnt
    assert per_step("easy_to_hard")[[0, 50, 99]].tolist() == [learnt, 3 * learnt, 4 * learnt]
    assert per_step("emcl_a", **all_open)[0] == 4 * (learnt + measured)
    assert per_step("emcl_a")[0] == learnt + 4 * measured
    assert per_step("emcl_a", difficulty="visited")[0] == learnt + 3 * measured
    assert per_step("emcl_a", difficulty="visited")[50] == 3 * learnt
    # Four places of four tasks each, differentiated, and the query.
    assert per_step("emcl_b")[0] == 16 * (1 + JVP) + 8
    assert per_step("emcl_b", sharing=1)[0] == 4 * (1 + JVP) + 8
    assert per_step("sft")[0] == 4 * 4
    assert per_step("random", mode="first_order", **all_open)[0] == 4 * 4
    assert per_step("random", mode="reptile", **all_open)[0] == 4 * measured
    config = EmclConfig(difficulty="visited")
    steps = steps_within(config, rows, tasks, 500.0)
    spent = [evaluations(config, rows, tasks, n).sum() for n in (steps, steps + 1)]
    assert spent[0] <= 500 < spent[1]
    assert outer_updates(config, tasks, 100).sum() > 100
    carried = EmclConfig(curriculum="emcl_b", carry=True)
    assert set(outer_updates(carried, tasks, 9)) == {tasks + 1}
    paced = EmclConfig(carry=True)
    assert outer_updates(paced, tasks, 100)[[0, 50, 99]].tolist() == [3, 9, 12]

"""Preference losses against closed forms, brute force and numpy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hen_jax.objectives.preference import (
    ComparedScores,
    Votes,
    comparison_loss,
    pair_loss,
    plackett_luce_loss,
    reward_gap,
)

D = np.linspace(-3, 3, 7, dtype=np.float32)


def outcome(win, tie=0.0):
    return Votes(jnp.full(D.shape, win), jnp.full(D.shape, tie))


def compare(scores, wins, margin=None, tied=None, **settings):
    known = [jnp.asarray(np.zeros_like(wins) if x is None else x, jnp.float32)
             for x in (wins, tied, margin)]  # fmt: skip
    loss, metrics = comparison_loss(
        jnp.asarray(scores, jnp.float32), ComparedScores(*known), **settings
    )
    return float(loss.total), float(loss.count), metrics


PAIR = [[[0.0, 1.0], [0.0, 0.0]]]


@pytest.mark.parametrize(("win", "tie"), [(1.0, 0.0), (0.0, 0.0), (0.75, 0.0), (0.2, 0.5)])
def test_equal_scores_give_ln_2(win, tie):
    at_zero = pair_loss(jnp.zeros(3), Votes(jnp.full(3, win), jnp.full(3, tie)))
    np.testing.assert_allclose(at_zero, math.log(2), rtol=1e-6)


def test_a_win_is_bradley_terry():
    np.testing.assert_allclose(
        pair_loss(jnp.asarray(D), outcome(1.0)), np.log1p(np.exp(-D)), rtol=1e-5
    )


def test_exchanging_the_sides_exchanges_the_outcome():
    for ties in ("half", "rao_kupper", "davidson"):
        one = pair_loss(jnp.asarray(D), outcome(0.7, 0.1), ties)
        other = pair_loss(-jnp.asarray(D), outcome(0.2, 0.1), ties)
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_soft_labels_are_least_at_their_log_odds():
    losses = pair_loss(jnp.asarray([0.5, math.log(3), 1.7]), Votes(jnp.full(3, 0.75), jnp.zeros(3)))
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]


def test_a_tie_is_half_a_win_for_each():
    half = pair_loss(jnp.asarray(D), outcome(0.0, 1.0))
    np.testing.assert_allclose(half, 0.5 * (np.log1p(np.exp(-D)) + np.log1p(np.exp(D))), rtol=1e-5)


@pytest.mark.parametrize("ties", ["rao_kupper", "davidson"])
def test_three_outcomes_have_probabilities_that_sum_to_one(ties):
    parts = [outcome(1.0), outcome(0.0), outcome(0.0, 1.0)]
    total = sum(np.exp(-pair_loss(jnp.asarray(D), part, ties)) for part in parts)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_rao_kupper_and_davidson_ties_against_their_ratios():
    """With strengths a, b: (theta^2 - 1) ab / ((a + theta b)(b + theta a)); nu sqrt(ab) / (...)."""
    a, b, theta, nu = np.exp(0.8), np.exp(-0.1), np.exp(0.4), np.exp(0.3)
    d, tie = jnp.asarray([0.9]), Votes(jnp.zeros(1), jnp.ones(1))
    rao = np.exp(-pair_loss(d, tie, "rao_kupper", 0.4))[0]
    davidson = np.exp(-pair_loss(d, tie, "davidson", 0.3))[0]
    assert rao == pytest.approx((theta**2 - 1) * a * b / ((a + theta * b) * (b + theta * a)), 1e-5)
    assert davidson == pytest.approx(nu * np.sqrt(a * b) / (a + b + nu * np.sqrt(a * b)), 1e-5)


def test_temperature_divides_before_the_margin_is_taken_off():
    assert reward_gap(jnp.asarray(2.0), jnp.asarray(1.0), 0.5, 0.3) == pytest.approx(1.7)


def test_a_smaller_beta_is_surer():
    losses = [compare([[1.0, 0.0]], PAIR, beta=beta)[0] for beta in (2.0, 1.0, 0.5)]
    assert losses == pytest.approx([math.log1p(math.exp(-1 / beta)) for beta in (2.0, 1.0, 0.5)])


def test_an_offset_changes_nothing_without_centring():
    scores, wins = np.array([[0.3, -0.4, 1.0]]), np.triu(np.ones((1, 3, 3)), 1)
    assert compare(scores, wins)[0] == pytest.approx(compare(scores + 5, wins)[0], rel=1e-5)
    centred = [compare(s, wins, centring=0.01)[0] for s in (scores, scores + 5)]
    assert centred[1] > centred[0] + 0.5


def test_centring_adds_the_squared_sum():
    plain, _, _ = compare([[1.5, -0.5]], PAIR)
    centred, _, _ = compare([[1.5, -0.5]], PAIR, centring=0.01)
    assert centred - plain == pytest.approx(0.01 * 1.0**2, rel=1e-3)


def test_each_prompt_counts_once_however_many_replies_it_compares():
    wins = np.zeros((3, 3, 3))
    wins[0, 0, 1] = 1
    wins[1] = np.triu(np.ones((3, 3)), 1)
    total, count, metrics = compare(np.zeros((3, 3)), wins)
    assert count == 2
    assert total == pytest.approx(2 * math.log(2), rel=1e-6)
    assert float(metrics["accuracy"].total) == pytest.approx(1.0)  # half of each
    assert float(metrics["score"].count) == 5


def test_comparisons_against_a_loop():
    random = np.random.default_rng(0)
    scores, wins = random.normal(size=(4, 3)), random.random((4, 3, 3)) * (1 - np.eye(3))
    margin = random.random((4, 3, 3))
    expected = 0.0
    for b in range(4):
        for i, j in itertools.permutations(range(3), 2):
            d = (scores[b, i] - scores[b, j]) / 0.7 - margin[b, i, j]
            expected += wins[b, i, j] / wins[b].sum() * np.log1p(np.exp(-d))
    assert compare(scores, wins, margin, beta=0.7)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ties", ["half", "rao_kupper", "davidson"])
def test_shares_ties_and_margins_of_a_row_are_those_of_its_pairs(ties):
    """Of one pair, 0.6 for the first, 0.3 for neither, margin 0.4: the loss of `pair_loss`."""
    wins, tied = [[[0, 0.6], [0.1, 0]]], [[[0, 0.3], [0.3, 0]]]
    margin = [[[0, 0.4], [-0.4, 0]]]
    total, count, metrics = compare([[1.2, 0.1]], wins, margin, tied, beta=0.7, ties=ties)
    d = reward_gap(jnp.asarray([1.2]), jnp.asarray([0.1]), 0.7, 0.4)
    expected = pair_loss(d, Votes(jnp.asarray([0.6]), jnp.asarray([0.3])), ties)[0]
    assert count == 1
    assert total == pytest.approx(float(expected), rel=1e-5)
    assert float(metrics["accuracy"].total) == pytest.approx(0.6 + 0.15)
    s = 1 / (1 + np.exp(-(1.1 / 0.7 - 0.4)))
    if ties == "half":
        assert total == pytest.approx(-0.75 * np.log(s) - 0.25 * np.log(1 - s), rel=1e-5)


def test_replies_that_no_one_compared_get_no_gradient():
    def loss(scores):
        known = ComparedScores(jnp.asarray(PAIR_OF_THREE), *jnp.zeros((2, 1, 3, 3)))
        return comparison_loss(scores, known, centring=0.1)[0].total

    gradient = jax.grad(loss)(jnp.asarray([[0.2, 0.1, 99.0]]))
    assert gradient[0, 2] == 0
    assert (gradient[0, :2] != 0).all()


PAIR_OF_THREE = np.zeros((1, 3, 3), np.float32)
PAIR_OF_THREE[0, 0, 1] = 1


def test_plackett_luce_against_brute_force():
    scores = np.array([0.4, -1.0, 0.9, 0.2])
    found = {}
    for order in itertools.permutations(range(4)):
        ranked = jnp.asarray(scores[list(order)][None], jnp.float32)
        found[order] = float(np.exp(-plackett_luce_loss(ranked, jnp.ones((1, 4), bool))[0]))
        left, expected = list(order), 1.0
        while left:
            strengths = np.exp(scores[left])
            expected *= strengths[0] / strengths.sum()
            left.pop(0)
        assert found[order] == pytest.approx(expected, rel=1e-5)
    assert sum(found.values()) == pytest.approx(1.0, rel=1e-5)


def test_plackett_luce_of_two_is_bradley_terry_and_skips_the_absent():
    present = jnp.asarray([[True, True, False]])
    loss = plackett_luce_loss(jnp.asarray([[1.2, 0.2, 7.0]]), present)[0]
    assert float(loss) == pytest.approx(math.log1p(math.exp(-1.0)), rel=1e-5)
    gradient = jax.grad(lambda s: plackett_luce_loss(s, present)[0])(jnp.asarray([[1.2, 0.2, 7.0]]))
    assert np.isfinite(gradient).all()
    assert gradient[0, 2] == 0

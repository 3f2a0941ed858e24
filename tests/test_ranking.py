"""Strengths by hand and by a second implementation, intervals by prompt, separation said."""

import math

import numpy as np
import pytest

from hen_jax.evaluation.ranking import Comparison, from_order, rank, ranking_row, strengths


def games(first, second, outcomes, group="g"):
    return [
        Comparison(first, second, outcome, f"{group}{number}")
        for number, outcome in enumerate(outcomes)
    ]


def by_player(ranking):
    return {one.player: one for one in ranking.standings}


@pytest.mark.parametrize("outcomes", [[1, 1, 1, 0], [1, 1, 0.5, 0.5], [0.5, 1, 0.5, 1]])
def test_three_points_of_four_are_ln_3(outcomes):
    found = by_player(rank(games("a", "b", outcomes), draws=1))
    assert found["a"].strength - found["b"].strength == pytest.approx(math.log(3), abs=1e-6)
    assert found["a"].share == 0.75
    assert found["a"].wins == found["b"].losses == outcomes.count(1)
    assert found["a"].ties == found["b"].ties == outcomes.count(0.5)


def test_the_order_of_a_pair_says_nothing():
    straight = games("a", "b", [1, 1, 0, 0.5]) + games("b", "c", [1, 0, 1, 0])
    turned = [Comparison(two, one, 1 - outcome, group) for one, two, outcome, group in straight]
    first, second = rank(straight, 20), rank(turned, 20)
    for one in first.standings:
        assert one == pytest.approx(by_player(second)[one.player])


def newman_free_mm(points, rounds=20_000):
    """Hunter's MM iteration (2004) in numpy: p_i = w_i / sum_j n_ij / (p_i + p_j)."""
    p, games = np.ones(len(points)), points + points.T
    for _ in range(rounds):
        p = points.sum(1) / (games / (p[:, None] + p[None, :])).sum(1)
        p /= np.exp(np.log(p).mean())
    return np.log(p)


def test_strengths_equal_a_second_implementation():
    random = np.random.default_rng(0)
    points = random.integers(1, 9, (5, 5)) / 2
    np.fill_diagonal(points, 0)
    points[0, 4] = points[4, 0] = 0  # two that never met
    np.testing.assert_allclose(strengths(points), newman_free_mm(points), atol=1e-6)


def test_a_player_who_never_loses_has_no_strength_and_is_named():
    never = games("a", "b", [1, 1, 1]) + games("b", "c", [1, 0, 0.5])
    found = rank(never, 50)
    assert found.separation == "nobody else won or tied against a"
    assert [one.strength for one in found.standings] == [None] * 3
    assert found.standings[0].player == "a"
    assert found.standings[0].share == 1.0
    lost = rank(games("a", "b", [0, 0]) + games("b", "c", [1, 0]), 1)
    assert lost.separation == "a never won or tied against anybody else"
    both = rank(games("a", "b", [1]), 1)
    assert both.separation == "nobody else won or tied against a"
    assert rank(games("a", "b", [1, 0.5]), 1).separation is None  # one tie is enough


def test_players_who_never_met_are_not_ranked_together():
    apart = rank(games("a", "b", [1, 0]) + games("c", "d", [1, 0]), 10)
    assert apart.separation == "never compared, not through others either: a, b | c, d"


def test_intervals_resample_prompts_not_comparisons():
    outcomes = [1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1]
    many = rank(games("a", "b", outcomes), 100)
    fewer = rank(
        [one for number, outcome in enumerate(outcomes) for one in
         [Comparison("a", "b", outcome, number // 4)]],
        100,
    )  # fmt: skip
    repeated = rank([one for one in games("a", "b", outcomes) for _ in range(10)], 100)
    width = [by_player(one)["a"].high - by_player(one)["a"].low for one in (many, repeated)]
    assert width[0] == pytest.approx(width[1])  # copies of a prompt's comparison tell nothing new
    assert (many.groups, fewer.groups, repeated.groups) == (12, 3, 12)
    inside = by_player(many)["a"]
    assert inside.low < inside.strength < inside.high


def test_resamples_without_strengths_open_the_interval():
    close = rank(games("a", "b", [1, 1, 1, 1, 0]), 400)
    a, b = by_player(close)["a"], by_player(close)["b"]
    assert 80 < close.draws_apart < 180  # 0.8 ** 5 of them lack the loss: a third
    assert a.high == math.inf
    assert b.low == -math.inf
    assert a.low == pytest.approx(-b.high)
    assert np.isfinite(a.low)
    row = ranking_row(close)["standings"]
    assert row[0]["high"] is None  # JSON knows no infinity


def test_a_ranking_is_all_its_pairs():
    assert from_order(["c", "a", "b"], 7) == [
        Comparison("c", "a", 1.0, 7),
        Comparison("c", "b", 1.0, 7),
        Comparison("a", "b", 1.0, 7),
    ]


def test_strengths_of_plackett_luce_are_found_from_its_rankings():
    random, true = np.random.default_rng(1), np.array([0.8, 0.0, -0.8])
    scores = true + random.gumbel(size=(4000, 3))  # Plackett-Luce by Gumbel noise
    names = np.array(["a", "b", "c"])
    orders = names[np.argsort(-scores, axis=1)]
    pairs = [one for group, order in enumerate(orders) for one in from_order(order, group)]
    found = by_player(rank(pairs, 1))
    np.testing.assert_allclose([found[name].strength for name in names], true, atol=0.08)


def test_what_is_no_comparison_is_refused():
    for wrong in ([], [Comparison("a", "a", 1, 0)], [Comparison("a", "b", 0.7, 0)]):
        with pytest.raises(ValueError, match=r"no comparison|no outcome"):
            rank(wrong)

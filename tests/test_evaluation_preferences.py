"""Measures of preference against hand-computed cases."""

import numpy as np
import pytest

from hen_jax.evaluation.calibration import calibration_of
from hen_jax.evaluation.preferences import (
    brier,
    estimate,
    fit_temperature,
    length_slope,
    level,
    pair_accuracy,
    probabilities,
    reliability,
    without_length,
)


def test_equal_scores_are_half_right_and_a_missing_score_shows():
    assert pair_accuracy(np.array([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(pair_accuracy(np.array([np.nan]))[0])


def test_the_interval_is_over_groups_not_rows():
    """Ten copies of each of four groups say no more than the four."""
    values, groups = np.array([0.0, 1.0, 1.0, 1.0]), list("abcd")
    four = estimate(values, groups)
    forty = estimate(np.tile(values, 10), groups * 10)
    assert forty == four
    assert four.value == 0.75
    assert four.groups == 4
    assert four.low < 0.5


def test_the_interval_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(1).normal(size=400)
    found = estimate(values, range(400))
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_groups_must_match_values():
    with pytest.raises(ValueError, match="3 values of 2 groups"):
        estimate(np.zeros(3), [1, 2])


def test_the_temperature_of_known_probabilities_is_found():
    d = np.linspace(-4, 4, 81)
    assert fit_temperature(d, probabilities(d, 2.5)) == pytest.approx(2.5, rel=1e-3)
    assert fit_temperature(d * 1e-3, probabilities(d, 2.5)) == pytest.approx(2.5e-3, rel=1e-3)


def test_equal_scores_have_no_temperature():
    with pytest.raises(ValueError, match="no temperature"):
        fit_temperature(np.zeros(4), np.ones(4))


def test_probabilities_of_both_orders_sum_to_one():
    d = np.array([0.0, 0.3, 40.0])
    assert (probabilities(d, 0.7) + probabilities(-d, 0.7)).tolist() == [1.0, 1.0, 1.0]
    assert probabilities(np.array([1.0]), 0.5)[0] > probabilities(np.array([1.0]), 2.0)[0]


def test_brier_of_always_one_half():
    assert brier(np.full(4, 0.5), np.array([0, 1, 1, 0])) == 0.25
    assert brier(np.array([0.8, 0.4]), np.array([1.0, 0.0])) == pytest.approx((0.04 + 0.16) / 2)


def test_calibration_error_weighs_bins_by_their_counts():
    predicted = np.array([0.05, 0.05, 0.05, 0.95, 1.0])
    share = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    found = reliability(predicted, share)
    assert found.count.tolist() == [3, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    expected = (3 * abs(0.05 - 1 / 3) + 2 * abs(0.975 - 1.0)) / 5
    assert found.error == pytest.approx(expected)


def test_length_slope_is_per_doubling_within_groups():
    lengths = np.array([10, 20, 1000, 4000])
    scores = np.array([0.0, 0.5, -7.0, -6.0])
    assert length_slope(scores, lengths, list("aabb")) == pytest.approx(0.5)
    assert length_slope(scores, np.full(4, 9), list("aabb")) == 0.0


def test_what_length_explains_is_taken_out():
    length = np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(without_length(0.3 * length, length), 0, atol=1e-12)
    left = without_length(np.array([1.0, 1.0]), np.array([1.0, -1.0]))
    assert left.tolist() == [1.0, 1.0]


def test_a_smaller_beta_gives_levels_further_from_one_half():
    """Oracle 3 of the preference model: the same scores, beta 1 and 0.1, about centre 2."""
    scores = np.array([1.5, 2.0, 2.5])
    soft, sharp = level(scores, 1.0, 2.0), level(scores, 0.1, 2.0)
    assert soft == pytest.approx([0.3775, 0.5, 0.6225], abs=1e-4)
    assert sharp == pytest.approx([0.0067, 0.5, 0.9933], abs=1e-4)


def test_a_frozen_calibration_is_in_spreads_of_its_task():
    report = {"temperature": 0.5, "centre": 1.0, "tasks": {"SER": {"mean": 2.0, "spread": 4.0}}}
    frozen = calibration_of(report)
    assert frozen.reward(4.0, "SER") == pytest.approx(0.5, rel=1e-5)
    assert frozen.reward(4.0, "SRER") is None
    assert frozen.level(1.5) == pytest.approx(1 / (1 + np.exp(-1)))
    assert frozen.share(2.0, 1.0) == pytest.approx(1 / (1 + np.exp(-2)))
    assert frozen.share(2.0, 1.0) + frozen.share(1.0, 2.0) == pytest.approx(1, abs=1e-15)
    assert calibration_of(report | {"temperature": None}).level(1.5) is None

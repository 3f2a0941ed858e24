"""Figures of `hen evaluate`: intervals by cluster, paired differences, what is missing."""

import math

import numpy as np
import pytest

from hen_jax.evaluation.figures import Drawing, bootstrap, differences, measured
from hen_jax.evaluation.preferences import estimate
from hen_jax.evaluation.suite import Corpus, Measured, Observed

IDS = [f"i{at}" for at in range(12)]
CLUSTERS = [f"c{at // 2}" for at in range(12)]


def observed(values, measure="m", ids=IDS, clusters=CLUSTERS, **more) -> Observed:
    return Observed(measure, "all", ids, clusters, np.asarray(values, float), **more)


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


def test_a_mean_and_its_interval_are_those_of_the_plain_bootstrap():
    values = np.random.default_rng(1).normal(size=12)
    expected = estimate(values, CLUSTERS, draws=400, seed=3)
    found = measured("s", "a", observed(values), Drawing(3, 400))
    np.testing.assert_allclose(
        [found.value, found.low, found.high], [expected.value, expected.low, expected.high]
    )
    assert (found.n, found.clusters, found.missing, found.seed) == (12, 6, 0, 3)


def test_a_ratio_of_sums_is_resampled_as_a_ratio_of_sums():
    values = np.random.default_rng(2).uniform(1, 3, (12, 2))
    found = measured("s", "a", observed(values, figure=ratio), Drawing(0, 300))
    again = estimate(values, CLUSTERS, lambda rows: ratio(rows.sum(0)), draws=300)
    np.testing.assert_allclose([found.value, found.low], [again.value, again.low])


def test_what_has_no_value_is_left_out_and_counted():
    values = np.arange(12.0)
    values[[0, 5]] = np.nan
    found = measured("s", "a", observed(values))
    assert (found.n, found.missing, found.value) == (10, 2, pytest.approx(61 / 10))
    nothing = measured("s", "a", observed(np.full(12, np.nan)))
    assert (nothing.value, nothing.low, nothing.n, nothing.missing) == (None, None, 0, 12)


def test_one_cluster_has_a_value_and_no_interval():
    found = measured("s", "a", observed(np.arange(12.0), clusters=["c"] * 12))
    assert (found.value, found.low, found.high) == (5.5, None, None)


def test_arms_are_compared_on_the_items_of_both():
    base, ours = np.arange(12.0), np.arange(12.0) + 1
    ours[3] = np.nan
    one = observed(ours[1:], ids=IDS[1:], clusters=CLUSTERS[1:])
    (line,) = differences("s", {"base": [observed(base)], "ours": [one]}, "base")
    assert (line.value, line.low, line.high) == pytest.approx((1, 1, 1))
    assert (line.n, line.missing, line.arm, line.against) == (10, 2, "ours", "base")
    assert line.p == pytest.approx(2 / 2001)


def test_pairing_makes_a_difference_sharper_than_two_intervals():
    base = np.random.default_rng(4).normal(scale=10, size=12)
    ours = base + np.random.default_rng(5).normal(1, 0.1, size=12)
    (line,) = differences("s", {"b": [observed(base)], "o": [observed(ours)]}, "b")
    assert line.low is not None
    assert line.low > 0.8
    assert measured("s", "o", observed(ours)).low < measured("s", "b", observed(base)).value


def test_many_differences_are_corrected_together():
    random = np.random.default_rng(6)
    base = [observed(random.normal(size=12), f"m{at}") for at in range(3)]
    ours = [one._replace(values=one.values + random.normal(0.4, 1, 12)) for one in base]
    lines = differences("s", {"b": base, "o": ours}, "b")
    ordered = sorted(lines, key=lambda line: line.p)
    expected = np.maximum.accumulate([min(1, (3 - k) * one.p) for k, one in enumerate(ordered)])
    np.testing.assert_allclose([one.p_holm for one in ordered], expected)


def test_a_corpus_figure_comes_with_the_jackknife():
    values = np.random.default_rng(7).normal(size=9)
    without = {f"c{at}": float(np.delete(values, at).mean()) for at in range(9)}
    found = measured("s", "a", Corpus("m", "all", values.mean(), without, 9))
    half = 1.959964 * values.std(ddof=1) / 3  # of a mean the jackknife is its standard error
    np.testing.assert_allclose([found.low, found.high], values.mean() + np.asarray([-half, half]))
    same = Corpus("m", "all", values.mean(), without, 9)
    (line,) = differences("s", {"b": [same], "o": [same]}, "b")
    assert (line.value, line.low, line.high, line.p) == (0, 0, 0, 1)


def test_a_measured_line_is_taken_as_it_is_and_has_no_difference():
    own = Measured("", "", "m", "all", 1.0, None, None, 5, 5, 0)
    assert measured("s", "a", own) == own._replace(suite="s", arm="a")
    assert differences("s", {"b": [own], "o": [own]}, "b") == []


def test_draws_in_which_the_figure_is_none_are_left_out():
    values = np.asarray([[1.0, 0.0]] * 10 + [[1.0, 1.0]] * 2)
    with np.errstate(divide="ignore"):
        one = bootstrap(values, CLUSTERS, lambda s: np.where(s[..., 1] > 0, 1.0, np.nan))
    assert (one.low, one.high) == (1, 1)
    assert math.isclose(one.value, 1)

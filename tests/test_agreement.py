"""Agreement of annotators, by hand and by the published example, and models of annotators."""

import math

import numpy as np
import pytest
from scipy.special import expit

from hen_jax.evaluation.agreement import krippendorff_alpha, pairwise_kappas, weighted_kappa
from hen_jax.evaluation.annotators import Choices, dawid_skene, reliable_bradley_terry

NO = math.nan
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, 3],
        [NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NO],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO],
    ]
).T
"""Krippendorff (2011), section C: four observers, twelve units, missing values."""


@pytest.mark.parametrize(
    ("metric", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_the_published_example(metric, expected):
    found = krippendorff_alpha(PUBLISHED, metric, draws=200)
    assert found.value == pytest.approx(expected, abs=5e-4)
    assert (found.items, found.ratings) == (11, 40)  # one unit has a single rating
    assert found.low < found.value < found.high


def test_alpha_by_hand_with_a_missing_rating():
    # Values 1 1 | 1 2 | 2 2 and a lone 2, which says nothing. Coincidences: (1,1) 2, (2,2) 2,
    # (1,2) and (2,1) one each; 3 of each value. Observed 2, expected 2 * 3 * 3 / 5.
    ratings = np.array([[1, 1], [1, 2], [2, 2], [NO, 2]])
    for metric in ("nominal", "ordinal", "interval"):
        assert krippendorff_alpha(ratings, metric).value == pytest.approx(1 - 2 / (18 / 5))


def test_alpha_at_its_ends():
    same = np.array([[1, 1], [2, 2], [3, 3]])
    assert krippendorff_alpha(same, "ordinal").value == 1
    assert krippendorff_alpha(np.array([[1, 2], [2, 1]] * 5), "nominal").value < 0
    assert math.isnan(krippendorff_alpha(np.ones((3, 2)), "interval").value)
    random = np.random.default_rng(0).integers(1, 6, (400, 3))
    assert abs(krippendorff_alpha(random, "ordinal", draws=50).value) < 0.06
    with pytest.raises(ValueError, match="no item has two ratings"):
        krippendorff_alpha(np.array([[1, NO], [NO, 2]]), "nominal")


def test_kappa_by_hand():
    # Cells 1-1: 2, 1-2: 1, 2-2: 1, 3-1: 1 of 5. Margins .6 .2 .2 and .6 .4 0.
    one, other = np.array([1, 1, 1, 2, 3]), np.array([1, 1, 2, 2, 1])
    assert weighted_kappa(one, other, "none") == pytest.approx((0.6 - 0.44) / (1 - 0.44))
    expected = 0.6 * 0.4 + 0.2 * 0.6 + 0.2 * (2 * 0.6 + 0.4)
    assert weighted_kappa(one, other, "linear") == pytest.approx(1 - 0.6 / expected)
    expected = 0.6 * 0.4 + 0.2 * 0.6 + 0.2 * (4 * 0.6 + 0.4)
    assert weighted_kappa(one, other, "quadratic") == pytest.approx(1 - 1.0 / expected)
    assert math.isnan(weighted_kappa(np.ones(3), np.ones(3), "linear"))


def test_kappas_are_of_annotators_who_share_items():
    ratings = np.array([[1, 1, NO], [2, 2, NO], [NO, 1, 2]])
    found = pairwise_kappas(ratings, "abc", "none")
    assert [(one.annotators, one.items) for one in found] == [(("a", "b"), 2), (("b", "c"), 1)]
    assert found[0].kappa == 1


def test_dawid_and_skene_follow_those_who_know():
    """Two who are right 9 times in 10 outvote three coins, whom a majority would follow."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 300)
    right = np.array([0.95, 0.92, 0.5, 0.5, 0.5])
    labels = np.where(random.random((300, 5)) < right, truth[:, None], 1 - truth[:, None])
    labels[::7, 1] = -1
    found = dawid_skene(labels, 2)
    np.testing.assert_allclose(found.reliability, right, atol=0.08)
    majority = (labels == 1).sum(axis=1) * 2 > (labels >= 0).sum(axis=1)
    assert np.mean(found.posterior.argmax(axis=1) == truth) > np.mean(majority == truth) + 0.05
    np.testing.assert_allclose(found.posterior.sum(axis=1), 1)


def test_dawid_and_skene_without_dispute_are_the_votes():
    found = dawid_skene(np.array([[0, 0], [2, 2], [1, -1]]), 3)
    assert found.posterior.argmax(axis=1).tolist() == [0, 2, 1]
    assert found.posterior[:2].max(axis=1).min() > 0.95
    assert 0.7 < found.posterior[2, 1] < 0.9  # a single vote is believed less


def test_bradley_terry_finds_who_is_to_be_trusted():
    random = np.random.default_rng(1)
    strength, right = np.array([1.5, 0.5, -0.5, -1.5]), np.array([0.98, 0.9, 0.5])
    first, second = np.array([(i, j) for i in range(4) for j in range(4) if i != j] * 60).T
    who = random.integers(0, 3, len(first))
    p = expit(strength[first] - strength[second])
    followed = random.random(len(first)) < right[who]
    ahead = random.random(len(first)) < p
    win = np.where(followed, ahead, ~ahead).astype(float)
    found = reliable_bradley_terry(Choices(first, second, who, win), 4, 3)
    assert np.argsort(-found.strength).tolist() == [0, 1, 2, 3]
    assert found.reliability[0] > 0.85
    assert found.reliability[2] < 0.65
    # All replies and answers the other way round: the strengths change their signs.
    back = reliable_bradley_terry(Choices(first, second, who, 1 - win), 4, 3)
    np.testing.assert_allclose(back.strength, -found.strength, atol=1e-3)

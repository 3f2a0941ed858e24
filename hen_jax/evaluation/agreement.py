"""How far people agree who rated the same items, with missing ratings: alpha and kappa.

Krippendorff's alpha (2011) compares the disagreement within items with that expected of the same
values dealt at random: 1 is perfect, 0 is chance, below 0 is systematic disagreement. Own code,
as the package of that name is under the GPL.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

Metric = Literal["nominal", "ordinal", "interval"]


class Alpha(NamedTuple):
    """Krippendorff's alpha with its 95 % interval; NaN where all values are the same."""

    value: float
    low: float
    high: float
    items: int  # that two or more have rated
    ratings: int  # of these items


def krippendorff_alpha(
    ratings: np.ndarray, metric: Metric, *, draws: int = 1000, seed: int = 0
) -> Alpha:
    """Alpha of `ratings [items, annotators]`, NaN where an annotator has not rated an item.

    The interval is by resampling items. Labels that are no numbers are numbered first and compared
    by the nominal metric.

    Raises:
      ValueError: no item that two have rated.
    """
    ratings = np.asarray(ratings, float)
    paired = (~np.isnan(ratings)).sum(axis=1) > 1
    if not paired.any():
        raise ValueError("no item has two ratings, so that nothing can be compared")
    values = np.unique(ratings[paired][~np.isnan(ratings[paired])])
    each = np.stack([_coincidences(row, values) for row in ratings[paired]])  # [items, C, C]
    value = _alpha(each.sum(axis=0), values, metric)
    random = np.random.default_rng(seed)
    times = random.multinomial(len(each), np.full(len(each), 1 / len(each)), draws)
    drawn = np.tensordot(times, each, axes=1)  # [draws, C, C]
    found = np.asarray([_alpha(one, values, metric) for one in drawn])
    known = found[~np.isnan(found)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Alpha(value, float(low), float(high), len(each), round(float(each.sum())))


def weighted_kappa(
    one: np.ndarray, other: np.ndarray, weights: Literal["none", "linear", "quadratic"]
) -> float:
    """Cohen's kappa (1968) of two annotators over the items `[n]` that both have rated (no NaN).

    Disagreements weigh 1 ("none"), by the distance of the two values, or by its square. NaN where
    both gave one and the same value throughout, as chance would do as well.
    """
    one, other = np.asarray(one, float), np.asarray(other, float)
    values = np.unique(np.concatenate([one, other]))
    far = np.abs(values[:, None] - values[None, :])
    weight = {"none": (far > 0).astype(float), "linear": far, "quadratic": far**2}[weights]
    place = [np.searchsorted(values, side) for side in (one, other)]
    observed = np.zeros((len(values), len(values)))
    np.add.at(observed, tuple(place), 1 / len(one))
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0))
    chance = float((weight * expected).sum())
    return 1 - float((weight * observed).sum()) / chance if chance > 0 else float("nan")


class Pairwise(NamedTuple):
    """The kappa of two annotators."""

    annotators: tuple[str, str]
    items: int  # that both have rated
    kappa: float


def pairwise_kappas(
    ratings: np.ndarray,
    annotators: Sequence[str],
    weights: Literal["none", "linear", "quadratic"],
) -> list[Pairwise]:
    """`weighted_kappa` of every two annotators (columns of `ratings`) that share an item."""
    found = []
    for one, other in combinations(range(len(annotators)), 2):
        shared = ~np.isnan(ratings[:, one]) & ~np.isnan(ratings[:, other])
        if shared.any():
            kappa = weighted_kappa(ratings[shared, one], ratings[shared, other], weights)
            found.append(Pairwise((annotators[one], annotators[other]), int(shared.sum()), kappa))
    return found


def _coincidences(row: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`[C, C]`: the ordered pairs of one item's m ratings, each weighing 1 / (m - 1)."""
    places = np.searchsorted(values, row[~np.isnan(row)])
    count = np.bincount(places, minlength=len(values)).astype(float)
    return (np.outer(count, count) - np.diag(count)) / (len(places) - 1)


def _alpha(coincidences: np.ndarray, values: np.ndarray, metric: Metric) -> float:
    count = coincidences.sum(axis=0)  # [C] ratings of each value
    far = _distances(values, count, metric)
    expected = (np.outer(count, count) * far).sum() / (count.sum() - 1)
    return 1 - float((coincidences * far).sum() / expected) if expected > 0 else float("nan")


def _distances(values: np.ndarray, count: np.ndarray, metric: Metric) -> np.ndarray:
    """Squared distances `[C, C]`; ordinal ones count the ratings that lie between two values."""
    if metric == "nominal":
        return 1.0 - np.eye(len(values))
    if metric == "interval":
        return (values[:, None] - values[None, :]) ** 2
    middle = np.cumsum(count) - count / 2
    return (middle[:, None] - middle[None, :]) ** 2

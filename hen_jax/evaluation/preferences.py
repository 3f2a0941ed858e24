"""How good the scores of replies are as predictions of what people prefer.

Everything here takes plain numpy arrays and groups: intervals are by resampling groups, as pairs of
one conversation or item are not independent.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit


class Estimate(NamedTuple):
    """A figure with its 95 % interval, and from how many groups it comes."""

    value: float
    low: float
    high: float
    groups: int


class Reliability(NamedTuple):
    """Predicted and observed shares in bins of equal width over [0, 1]; empty bins hold NaN."""

    predicted: np.ndarray  # [bins]
    observed: np.ndarray  # [bins]
    count: np.ndarray  # [bins]

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al., 2015): mean gap, weighted by the counts."""
        filled = self.count > 0
        gaps = np.abs(self.predicted[filled] - self.observed[filled])
        return float(np.average(gaps, weights=self.count[filled]))


def pair_accuracy(differences: np.ndarray) -> np.ndarray:
    """1 where the preferred reply scores higher, 0.5 at equal scores, else 0, for each pair.

    A score that is not a number is neither higher nor equal: NaN, so that a mean shows it.
    """
    differences = np.asarray(differences, float)
    return np.where(np.isnan(differences), np.nan, 0.5 * (1 + np.sign(differences)))


def estimate(
    values: np.ndarray,
    groups: Sequence[Hashable],
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """`statistic(values)` with the interval of a bootstrap that draws whole groups.

    `values` is `[n]` or `[n, ...]`; the statistic sees the rows of the drawn groups.

    Raises:
      ValueError: no value, or another number of groups than of values.
    """

    def one(rows: np.ndarray) -> np.ndarray:
        return np.asarray([statistic(rows)])

    return estimates(values, groups, one, draws=draws, seed=seed)[0]


def estimates(
    values: np.ndarray,
    groups: Sequence[Hashable],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> list[Estimate]:
    """`estimate` of a statistic of several figures `[s]`, all from the same draws.

    A draw for which a figure is not a number is left out of that figure's interval; a figure that
    is none itself has no interval.
    """
    values = np.asarray(values, float)
    if len(values) != len(groups) or not len(values):
        raise ValueError(f"{len(values)} values of {len(groups)} groups; give one group to each")
    _, which = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    members = [np.flatnonzero(which == group) for group in range(which.max() + 1)]
    random = np.random.default_rng(seed)
    found = np.asarray(
        [
            statistic(values[np.concatenate([members[group] for group in drawn])])
            for drawn in random.integers(0, len(members), (draws, len(members)))
        ]
    )
    figures = zip(statistic(values).tolist(), found.T, strict=True)
    return [Estimate(value, *_bounds(value, drawn), len(members)) for value, drawn in figures]


def _bounds(value: float, draws: np.ndarray) -> tuple[float, float]:
    if np.isnan(value):
        return float("nan"), float("nan")
    low, high = np.quantile(draws[~np.isnan(draws)], [0.025, 0.975])
    return float(low), float(high)


def fit_temperature(differences: np.ndarray, share: np.ndarray) -> float:
    """The beta at which `sigmoid(difference / beta)` is likeliest (Guo et al., 2017); fit it on
    held-out groups, never on those that are then reported.

    `share` is the share of people who preferred the first, ties counting half. Scores that rank no
    better than chance have no best temperature: the answer is the upper bound, 1e4 times the
    spread of the differences, at which every probability is one half.

    Raises:
      ValueError: all differences are 0, or one is not finite.
    """
    differences, share = np.asarray(differences, float), np.asarray(share, float)
    spread = np.abs(differences).mean() if len(differences) else 0.0
    if not np.isfinite(differences).all() or spread == 0:
        raise ValueError("scores that are all equal, or not finite, have no temperature")

    def loss(log_beta: float) -> float:
        d = differences / np.exp(log_beta)
        return float(-(share * log_expit(d) + (1 - share) * log_expit(-d)).mean())

    bounds = np.log(spread) + np.log([1e-4, 1e4])
    best: Any = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(best.x))


def probabilities(differences: np.ndarray, beta: float) -> np.ndarray:
    """P(first is preferred); of a pair and the same pair exchanged they sum to 1."""
    return expit(np.asarray(differences, float) / beta)


def level(scores: np.ndarray, beta: float, centre: float = 0.0) -> np.ndarray:
    """How much of what was preferred a reply has, in [0, 1]: `sigmoid((score - centre) / beta)`.

    After equation A of the empathetic expert adapters, in our reconstruction; the centre is ours. A
    smaller beta is sharper: 0.5 over the centre is 0.62 at 1 and 0.99 at 0.1.
    """
    return expit((np.asarray(scores, float) - centre) / beta)


def brier(predicted: np.ndarray, share: np.ndarray) -> float:
    """Mean squared error of probabilities (Brier, 1950); 0.25 for always one half."""
    return float(((np.asarray(predicted) - np.asarray(share)) ** 2).mean())


def reliability(predicted: np.ndarray, share: np.ndarray, bins: int = 10) -> Reliability:
    """Predicted against observed, for a reliability plot and its calibration error.

    A pair says the same as the pair exchanged, so give each once, in an order that does not depend
    on the answer; else every observed share is 1.
    """
    predicted, share = np.asarray(predicted, float), np.asarray(share, float)
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        p, q = (np.bincount(place, x, minlength=bins) / count for x in (predicted, share))
    return Reliability(p, q, count)


def length_slope(scores: np.ndarray, lengths: np.ndarray, groups: Sequence[Hashable]) -> float:
    """Score per doubling of length, within groups: what a reply gains by being twice as long.

    Both are taken as differences from their group's mean, so that long prompts do not count.
    """
    doubled = np.log2(np.asarray(lengths, float))
    _, which = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    size = np.bincount(which)

    def inside(x: np.ndarray) -> np.ndarray:
        return x - (np.bincount(which, x) / size)[which]

    x, y = inside(doubled), inside(np.asarray(scores, float))
    return float(x @ y / (x @ x)) if x @ x > 0 else 0.0


def without_length(differences: np.ndarray, length_differences: np.ndarray) -> np.ndarray:
    """Score differences less what a straight line through 0 explains by length alone."""
    x, y = np.asarray(length_differences, float), np.asarray(differences, float)
    slope = x @ y / (x @ x) if x @ x > 0 else 0.0
    return y - slope * x

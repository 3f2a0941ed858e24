"""How well predicted ratings in [0, 1] meet the true ones, and what they are worth beside controls.

Errors and correlations are of the ratings as they are; classes are whole ratings from 1 to 5, as in
`evaluation.ratings`. Intervals are by resampling groups, the conversations of a person together.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.empathy.scales import PERCEIVED
from hen_jax.evaluation.preferences import Estimate, estimates
from hen_jax.evaluation.ratings import EXACT, macro_f1, rating_classes


class RegressionScores(NamedTuple):
    """Scores of predicted ratings."""

    mse: float  # in [0, 1]
    mae: float
    pearson: float  # NaN where a side is constant, as Spearman's
    spearman: float
    accuracy: float  # of classes 1 to 5, as the two below
    macro_f1: float
    within_one: float


def regression_scores(truth: np.ndarray, predicted: np.ndarray) -> RegressionScores:
    """Scores of `predicted [n]` against `truth [n]`, both in [0, 1].

    `truth [0, 0.5, 1]` and `predicted [0.25, 0.5, 0.75]` have MSE 1/24, both correlations 1,
    accuracy 1/3 (1 against 2, 3 against 3, 5 against 4) and within-1 accuracy 1.
    """
    truth, predicted = np.asarray(truth, float), np.asarray(predicted, float)
    classes = [_classes(truth), _classes(predicted)]
    apart = np.abs(classes[0] - classes[1])
    return RegressionScores(
        mse=float(np.mean((truth - predicted) ** 2)),
        mae=float(np.mean(np.abs(truth - predicted))),
        pearson=_correlation(truth, predicted),
        spearman=_correlation(*(_ranks(side) for side in (truth, predicted))),
        accuracy=float(np.mean(apart == 0)),
        macro_f1=macro_f1(*classes),
        within_one=float(np.mean(apart <= 1)),
    )


class HeldRatings(NamedTuple):
    """Held-out conversations: their ratings, their groups, and what controls predict of them."""

    truth: np.ndarray  # [n]
    groups: Sequence[Hashable]
    controls: Mapping[str, np.ndarray]  # [n] each; `constant` is one of them


def regression_report(
    predicted: np.ndarray, held: HeldRatings, *, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Scores of `predicted [n]` with intervals, and of each control; JSON, NaN as null.

    `mse_ratio` is the error beside that of the constant predictor: 1 is no better.
    """
    with_intervals = {
        name: interval(one)
        for name, one in score_estimates(predicted, held, draws=draws, seed=seed).items()
    }
    controls = {
        name: _numbers(regression_scores(held.truth, found))
        for name, found in held.controls.items()
    }
    return {"model": with_intervals, "controls": controls, "conversations": len(held.truth)}


def score_estimates(
    predicted: np.ndarray, held: HeldRatings, *, draws: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Every field of `RegressionScores`, and `mse_ratio`, with 95 % intervals."""
    names = (*RegressionScores._fields, "mse_ratio")

    def statistic(rows: np.ndarray) -> np.ndarray:
        truth, ours, constant = rows.T
        floor = np.mean((truth - constant) ** 2)
        scores = regression_scores(truth, ours)
        return np.asarray([*scores, scores.mse / floor if floor > 0 else np.nan])

    rows = np.stack([held.truth, predicted, held.controls["constant"]], axis=1)
    found = estimates(rows, held.groups, statistic, draws=draws, seed=seed)
    return dict(zip(names, found, strict=True))


def interval(one: Estimate) -> dict[str, Any]:
    """An estimate as JSON; null for what could not be computed."""
    value, low, high = (_number(number) for number in one[:3])
    return {"value": value, "low": low, "high": high, "groups": one.groups}


def _numbers(scores: RegressionScores) -> dict[str, float | None]:
    return {name: _number(value) for name, value in scores._asdict().items()}


def _number(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _classes(unit: Any) -> np.ndarray:
    """Whole ratings from 1 to 5; what differs beyond `EXACT` decimals only is of one class."""
    return rating_classes(np.round(PERCEIVED.from_unit(unit), EXACT))


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata  # half a second to load

    return rankdata(np.round(values, EXACT))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = np.round(one, EXACT), np.round(other, EXACT)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])

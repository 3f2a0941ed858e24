"""How well a router recognises contexts: on held-out groups, beside what knows words or nothing."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata

from hen_jax.evaluation.preferences import estimate, reliability
from hen_jax.evaluation.ratings import macro_f1
from hen_jax.evaluation.softmax_ridge import fit_softmax


class Calibrated(NamedTuple):
    """What is fitted on held-out conversations and then frozen."""

    temperature: float
    threshold: float  # a likeliest expert below it does not answer

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """`[N, C]` at the temperature."""
        return softmax(np.asarray(logits) / self.temperature, axis=1)


def calibrate(logits: np.ndarray, labels: np.ndarray, keep: float) -> Calibrated:
    """The likeliest temperature, and the threshold that `keep` of these conversations pass.

    A temperature is looked for between 0.05 and 20: where every conversation is right, the
    likeliest one is 0, which no conversation that is not here would bear out.
    """
    logits, rows = np.asarray(logits, float), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[rows, labels].mean())

    best: Any = minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded")
    temperature = float(np.exp(best.x))
    confidence = np.sort(softmax(logits / temperature, axis=1).max(axis=1))
    lost = int(np.floor((1 - keep) * len(confidence) + 1e-9))
    return Calibrated(temperature, float(confidence[min(lost, len(confidence) - 1)]))


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """The share of pairs in which a known conversation scores above an unknown one; ties half."""
    if not len(known) or not len(unknown):
        return float("nan")
    ranks = rankdata(np.concatenate([known, unknown]))[: len(known)]
    return float((ranks.sum() - len(known) * (len(known) + 1) / 2) / (len(known) * len(unknown)))


def left_out_auroc(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: Sequence[str],
    ridge: float,
) -> dict[str, float | None]:
    """AUROC of "belongs to none" for each expert in turn, left out of training, and their mean.

    `train` and `test` are features `[N, D]` and labels. The others' regression is fitted anew; its
    likeliest probability is the score. Of two experts one alone is left, which is always sure: nan.
    """
    found: dict[str, float | None] = {}
    for left_out, name in enumerate(names):
        mine = train[1] != left_out
        others = np.delete(np.arange(len(names)), left_out)
        labels = np.searchsorted(others, train[1][mine])
        head = fit_softmax(train[0][mine], labels, len(others), ridge)
        confidence = softmax(head.logits(test[0]), axis=1).max(axis=1)
        known = test[1] != left_out
        value = auroc(confidence[known], confidence[~known]) if len(others) > 1 else np.nan
        found[name] = _rounded(value)
    values = [value for value in found.values() if value is not None]
    return found | {"mean": _rounded(np.mean(values)) if values else None}


def routing_report(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    names: Sequence[str],
    calibrated: Calibrated,
) -> dict[str, Any]:
    """Accuracy (95 % by group), macro-F1, confusion, calibration and what the threshold leaves.

    `confusion[i][j]` counts conversations of expert `i` that were given to `j`; its last column are
    those that the base answers.
    """
    probabilities = calibrated.probabilities(logits)
    best, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right, passed = (best == labels).astype(float), confidence >= calibrated.threshold
    given = np.where(passed, best, len(names))
    confusion = np.zeros((len(names), len(names) + 1), int)
    np.add.at(confusion, (labels, given), 1)
    accuracy = estimate(right, groups)
    return {
        "conversations": len(labels),
        "accuracy": {key: _rounded(value) for key, value in accuracy._asdict().items()},
        "macro_f1": _rounded(macro_f1(labels, best)),
        "calibration_error": _rounded(reliability(confidence, right).error),
        "routed": _rounded(passed.mean()),
        "accuracy_of_routed": _rounded(right[passed].mean() if passed.any() else float("nan")),
        "confusion": confusion.tolist(),
    }


def plain_accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Accuracy and macro-F1 of a control."""
    best = np.asarray(logits).argmax(axis=1)
    return {
        "accuracy": _rounded((best == labels).mean()),
        "macro_f1": _rounded(macro_f1(labels, best)),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, int):
        return value
    return None if np.isnan(value) else round(float(value), 4)

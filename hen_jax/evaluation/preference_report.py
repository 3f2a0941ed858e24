"""What the scores of held-out pairs are worth, beside what rankers without understanding reach."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.evaluation.preferences import (
    Estimate,
    brier,
    estimate,
    fit_temperature,
    length_slope,
    pair_accuracy,
    probabilities,
    reliability,
    without_length,
)


class Held(NamedTuple):
    """Held-out pairs, one entry each; `controls` are margins of rankers fitted on other groups."""

    shares: np.ndarray  # [n] of the people asked, for the first: from 0.5, which is a tie
    kinds: Sequence[str]
    groups: Sequence[Hashable]
    flipped: np.ndarray  # [n] bool: which pairs a calibration sees the other way round
    lengths: np.ndarray  # [n, 2] of the chosen and the rejected reply
    crossed: Callable[[str], bool]
    controls: Mapping[str, np.ndarray]


class TaskScores(NamedTuple):
    """Documents' scores and the task of each."""

    scores: np.ndarray
    tasks: Sequence[str]


def report_preferences(scores: np.ndarray, held: Held, replies: TaskScores) -> dict[str, Any]:
    """Accuracies by kind with intervals and controls, calibration, and the temperature.

    Args:
      scores: `[n, 2]` of the chosen and the rejected reply of each pair.
      replies: every held-out document once, whose mean and spread calibrate each task.

    The temperature is fitted on all pairs; Brier score and calibration error come from one that was
    fitted on the other half of the groups. `centre` is the score half way between the two sides:
    `level` of a reply is relative to it. Pairs that people call equal count in none of the
    accuracies.
    """
    d = scores[:, 0] - scores[:, 1]
    log2 = np.log2(held.lengths)
    stacked = np.concatenate([log2[:, 0], log2[:, 1]])
    both = np.concatenate([scores[:, 0], scores[:, 1]])
    pairs = [*range(len(d))] * 2
    return {
        "accuracy": {kind: _accuracies(d, held, chosen) for kind, chosen in _kinds(held).items()},
        "temperature": _temperature(d, held.shares),
        "centre": float(scores.mean()),
        "calibration": _calibration(d, held),
        "tasks": {task: _spread(own) for task, own in _by_task(replies).items()},
        "length": {
            "score_per_doubling": length_slope(both, 2.0**stacked, pairs),
            "accuracy_without_length": float(
                pair_accuracy(without_length(d, log2[:, 0] - log2[:, 1])).mean()
            ),
        },
    }


EVEN = 0.5 + 1e-6
"""A share up to this says that two replies are equally good."""


def _kinds(held: Held) -> dict[str, np.ndarray]:
    """Places of the pairs of each kind, and of all that are crossed and all that are not."""
    kinds = np.asarray([kind or "pairs" for kind in held.kinds])
    crossed = np.asarray([held.crossed(kind) for kind in held.kinds], bool)
    found = {f"crossed/{kind}": (kinds == kind) & crossed for kind in np.unique(kinds[crossed])}
    found |= {f"plain/{kind}": (kinds == kind) & ~crossed for kind in np.unique(kinds[~crossed])}
    found |= {"crossed": crossed, "plain": ~crossed}
    told = held.shares > EVEN
    places = {name: np.flatnonzero(own & told) for name, own in found.items()}
    return {name: own for name, own in places.items() if len(own)}


def _accuracies(d: np.ndarray, held: Held, places: np.ndarray) -> dict[str, Any]:
    groups = [held.groups[place] for place in places]
    value = estimate_row(estimate(pair_accuracy(d[places]), groups))
    controls = {
        name: round(float(pair_accuracy(margins[places]).mean()), 4)
        for name, margins in held.controls.items()
    }
    return {"model": value, "pairs": len(places), **controls}


def estimate_row(one: Estimate) -> dict[str, Any]:
    """An estimate as JSON."""
    return {
        "value": round(one.value, 4),
        "low": round(one.low, 4),
        "high": round(one.high, 4),
        "groups": one.groups,
    }


def _temperature(d: np.ndarray, shares: np.ndarray) -> float | None:
    """None where scores have none: all equal, or not finite."""
    if not np.isfinite(d).all() or not np.abs(d).any():
        return None
    return fit_temperature(d, shares)


def _calibration(d: np.ndarray, held: Held) -> dict[str, Any] | None:
    """Of probabilities by a temperature of the other half of the groups."""
    names = sorted({str(group) for group in held.groups})
    half = {name: number % 2 for number, name in enumerate(names)}
    side = np.asarray([half[str(group)] for group in held.groups])
    sign = np.where(held.flipped, -1.0, 1.0)
    share, predicted = np.where(held.flipped, 1 - held.shares, held.shares), np.zeros(len(d))
    for one in (0, 1):
        rest = side != one
        beta = _temperature(d[rest], held.shares[rest]) if rest.any() else None
        if beta is None:
            return None
        predicted[side == one] = probabilities(sign[side == one] * d[side == one], beta)
    bins = reliability(predicted, share)
    return {
        "brier": brier(predicted, share),
        "ece": bins.error,
        "bins": [
            {"predicted": round(p, 4), "observed": round(q, 4), "pairs": n}
            for p, q, n in zip(*(field.tolist() for field in bins), strict=True)
            if n
        ],
    }


def _by_task(replies: TaskScores) -> dict[str, np.ndarray]:
    tasks = np.asarray(replies.tasks)
    return {str(task): replies.scores[tasks == task] for task in np.unique(tasks)}


def _spread(scores: np.ndarray) -> dict[str, Any]:
    return {"mean": float(scores.mean()), "spread": float(scores.std()), "replies": len(scores)}

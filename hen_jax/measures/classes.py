"""Scores of predicted classes: accuracy, weighted, macro and micro F1, and what was no label.

Equal to scikit-learn's `f1_score(truth, predicted, labels=labels, zero_division=0)`: a class that
nobody named and that never was true counts 0 in the macro mean. A prediction that is None or no
label of the set is wrong, and is counted.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hen_jax.core.errors import InputError


class ClassScore(NamedTuple):
    """One class."""

    precision: float
    recall: float
    f1: float
    support: int  # how often it is true


class ClassScores(NamedTuple):
    """All classes; shares in [0, 1]."""

    count: int
    accuracy: float
    weighted_f1: float  # by support
    macro_f1: float
    micro_f1: float
    unknown: int  # predictions that are no label
    classes: dict[str, ClassScore]


def class_scores(
    truth: Sequence[str],
    predicted: Sequence[str | None],
    labels: Sequence[str],
    leave_out: Sequence[str] = (),
) -> ClassScores:
    """Scores over `labels`; the F1 means are over those that are not in `leave_out`.

    Accuracy is over all items. Leaving out `neutral` gives DailyDialog's micro F1.

    Raises:
      InputError: no item, lists of different lengths, or a true label that is not in `labels`.
    """
    if len(truth) != len(predicted) or not truth:
        raise InputError(f"{len(predicted)} predictions for {len(truth)} true labels")
    strange = sorted(set(truth) - set(labels))
    if strange:
        raise InputError(f"true label {strange[0]!r}; allowed: {', '.join(labels)}")
    classes = {label: _class_score(truth, predicted, label) for label in labels}
    kept = [classes[label] for label in labels if label not in leave_out]
    support = sum(one.support for one in kept)
    return ClassScores(
        count=len(truth),
        accuracy=sum(a == b for a, b in zip(truth, predicted, strict=True)) / len(truth),
        weighted_f1=sum(one.f1 * one.support for one in kept) / support if support else 0.0,
        macro_f1=sum(one.f1 for one in kept) / len(kept),
        micro_f1=_micro(truth, predicted, set(labels) - set(leave_out)),
        unknown=sum(one not in classes for one in predicted),
        classes=classes,
    )


def majority_scores(truth: Sequence[str], labels: Sequence[str]) -> ClassScores:
    """Scores of always answering the commonest label: what any model has to beat."""
    commonest = max(labels, key=truth.count)
    return class_scores(truth, [commonest] * len(truth), labels)


def _class_score(truth: Sequence[str], predicted: Sequence[str | None], label: str) -> ClassScore:
    named, true = predicted.count(label), truth.count(label)
    hits = sum(a == b == label for a, b in zip(truth, predicted, strict=True))
    return ClassScore(
        precision=hits / named if named else 0.0,
        recall=hits / true if true else 0.0,
        f1=2 * hits / (named + true) if named + true else 0.0,
        support=true,
    )


def _micro(truth: Sequence[str], predicted: Sequence[str | None], kept: set[str]) -> float:
    hits = sum(a == b and a in kept for a, b in zip(truth, predicted, strict=True))
    total = sum(one in kept for one in truth) + sum(one in kept for one in predicted)
    return 2 * hits / total if total else 0.0

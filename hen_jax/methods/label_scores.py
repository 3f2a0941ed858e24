"""Scores of labels against labels: accuracy, F1 of each label, macro-F1."""

from collections.abc import Hashable, Sequence

import numpy as np


def accuracy(gold: Sequence[Hashable], given: Sequence[Hashable]) -> float:
    """The share that agrees; anything that is no label agrees with none. NaN of nothing."""
    return float(
        np.mean([one == other for one, other in zip(gold, given, strict=True)] or [np.nan])
    )


def label_f1(gold: Sequence[Hashable], given: Sequence[Hashable], label: Hashable) -> float:
    """`2 tp / (2 tp + fp + fn)` of one label; 0 where it is neither in gold nor given."""
    pairs = list(zip(gold, given, strict=True))
    right = sum(one == other == label for one, other in pairs)
    wrong = sum((one == label) != (other == label) for one, other in pairs)
    return 2 * right / (2 * right + wrong) if right or wrong else 0.0


def label_macro_f1(
    gold: Sequence[Hashable], given: Sequence[Hashable], labels: Sequence[Hashable]
) -> float:
    """The mean of `label_f1` over `labels`, as scikit-learn's with these labels, 0 for 0/0."""
    return float(np.mean([label_f1(gold, given, label) for label in labels]))

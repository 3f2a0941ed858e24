"""A ranker that knows words and nothing else, not even the prompt: the control of every accuracy.

It solves most synthetic preference sets, since the writer's hand tells chosen from rejected. What a
reward model does beyond it is worth reporting; on crossed pairs it is right half of the time.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit, log_expit

from hen_jax.data.preferences import Pair
from hen_jax.data.splits import part_number

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+(?:'[^\W\d_]+)?|\d+|[^\w\s]")
_HAN = re.compile(r"[\u3400-\u9fff]")
_RIDGE = 1.0  # times the squared weights, beside a loss that is a sum over pairs
_MOST = 20_000  # pairs that it learns from


def word_list(text: str) -> list[str]:
    """Its words and marks in their order, in lower case; of Chinese the characters."""
    return _WORD.findall(text.lower())


def word_counts(text: str) -> Counter[str]:
    """Its words and marks in lower case; of Chinese the characters and pairs of them."""
    found = word_list(text)
    pairs = [one + two for one, two in pairwise(found) if _both_han(one, two)]
    return Counter(found + pairs)


def word_margins(train: Sequence[Pair], test: Sequence[Pair]) -> np.ndarray:
    """How far ahead the chosen reply of each test pair is; above 0 is right, 0 is a tie.

    Ridge Bradley-Terry on `log(1 + count)` of each word, fitted on `train`.
    """
    vocabulary: dict[str, int] = {}
    ours = [_difference(pair) for pair in train[:_MOST]]
    for found in ours:
        for word in found:
            vocabulary.setdefault(word, len(vocabulary))
    if not vocabulary:
        return np.zeros(len(test))
    x = _matrix(ours, vocabulary)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = x @ weights
        slope = -x.T @ expit(-margins) + _RIDGE * weights
        return float(-log_expit(margins).sum() + _RIDGE / 2 * weights @ weights), slope

    weights = minimize(loss, np.zeros(len(vocabulary)), jac=True, method="L-BFGS-B").x
    return _matrix([_difference(pair) for pair in test], vocabulary) @ weights


def cross_validated_margins(pairs: Sequence[Pair], folds: int = 5) -> np.ndarray:
    """`word_margins` of each pair by a ranker that never saw its group."""
    fold = np.asarray([part_number(pair.group, folds, "words") for pair in pairs])
    margins = np.zeros(len(pairs))
    for held in np.unique(fold):
        train = [pair for pair, at in zip(pairs, fold, strict=True) if at != held]
        places = np.flatnonzero(fold == held)
        margins[places] = word_margins(train, [pairs[int(place)] for place in places])
    return margins


def _difference(pair: Pair) -> dict[str, float]:
    chosen, rejected = (
        word_counts("\n".join(message.content for message in said if message.role == "assistant"))
        for said in (pair.chosen, pair.rejected)
    )
    found = {
        word: float(np.log1p(chosen[word]) - np.log1p(rejected[word]))
        for word in sorted(chosen | rejected)
    }
    return {word: value for word, value in found.items() if value}


def _matrix(rows: Sequence[dict[str, float]], vocabulary: dict[str, int]) -> csr_matrix:
    entries = [
        (row, vocabulary[word], value)
        for row, found in enumerate(rows)
        for word, value in found.items()
        if word in vocabulary
    ]
    row, column, value = zip(*entries, strict=True) if entries else ((), (), ())
    return csr_matrix((value, (row, column)), shape=(len(rows), len(vocabulary)))


def _both_han(one: str, two: str) -> bool:
    return bool(_HAN.match(one) and _HAN.match(two))

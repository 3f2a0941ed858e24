"""Softmax regression to its optimum, on dense or sparse features: the control of a router's head.

mean over rows of -log softmax(x W + b)[label]  +  ridge / 2 |W|^2
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import log_softmax, softmax

from hen_jax.data.word_ranker import word_counts

WORD_RIDGE = 1e-3
"""Of the bag of words; ours."""


class SoftmaxFit(NamedTuple):
    """A fitted regression."""

    kernel: np.ndarray  # [D, C]
    bias: np.ndarray  # [C]

    def logits(self, x: Any) -> np.ndarray:
        """`[N, C]` of features `[N, D]`."""
        return np.asarray(x @ self.kernel) + self.bias


def fit_softmax(x: Any, labels: np.ndarray, classes: int, ridge: float) -> SoftmaxFit:
    """The optimum by L-BFGS; `x [N, D]` may be sparse."""
    width, rows = x.shape[1], x.shape[0]
    truth = np.eye(classes)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = flat[: width * classes].reshape(width, classes), flat[width * classes :]
        logits = np.asarray(x @ kernel) + bias
        miss = (softmax(logits, axis=1) - truth) / rows
        value = -(truth * log_softmax(logits, axis=1)).sum() / rows + ridge / 2 * (kernel**2).sum()
        slope = np.asarray(x.T @ miss) + ridge * kernel
        return float(value), np.concatenate([slope.ravel(), miss.sum(axis=0)])

    start = np.zeros((width + 1) * classes)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    return SoftmaxFit(best[: width * classes].reshape(width, classes), best[width * classes :])


def word_logits(
    train: Sequence[str], labels: np.ndarray, test: Sequence[str], classes: int
) -> np.ndarray:
    """`[N, C]` by a bag of words: `log(1 + count)` of each word, scaled to length 1."""
    counts = [word_counts(text) for text in train]
    vocabulary = {word: at for at, word in enumerate(sorted(set().union(*counts)))}
    head = fit_softmax(_bag(counts, vocabulary), labels, classes, WORD_RIDGE)
    return head.logits(_bag([word_counts(text) for text in test], vocabulary))


def _bag(counts: Sequence[Counter[str]], vocabulary: dict[str, int]) -> csr_matrix:
    entries: list[tuple[int, int, float]] = []
    for row, found in enumerate(counts):
        own = {word: np.log1p(number) for word, number in found.items() if word in vocabulary}
        length = float(np.sqrt(sum(value**2 for value in own.values()))) or 1.0
        entries += [(row, vocabulary[word], value / length) for word, value in own.items()]
    rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
    return csr_matrix((values, (rows, columns)), shape=(len(counts), len(vocabulary)))

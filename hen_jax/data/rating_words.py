"""What words and length alone say of a rating, not even seeing the user's side: the controls.

A rating model that is no better than these has learnt a vocabulary.
"""

from collections.abc import Sequence

import numpy as np

from hen_jax.data.word_ranker import word_counts

_RIDGE = 1.0
"""Relative to the mean squared length of a conversation's vector: `K + r mean(diag K) I`."""


def word_ratings(train: Sequence[str], truth: np.ndarray, test: Sequence[str]) -> np.ndarray:
    """Ratings of `test` by a ridge regression on `log(1 + count)` of words, clipped to [0, 1]."""
    vocabulary = {word: at for at, word in enumerate(sorted(set().union(*map(word_counts, train))))}
    return _ridge(_counts(train, vocabulary), truth, _counts(test, vocabulary))


def length_ratings(train: Sequence[str], truth: np.ndarray, test: Sequence[str]) -> np.ndarray:
    """Ratings of `test` by a straight line in the logarithm of length, clipped to [0, 1]."""
    ours, theirs = (
        np.log1p([[len(text)] for text in texts]).astype(float) for texts in (train, test)
    )
    if np.ptp(ours) == 0:
        return np.full(len(theirs), np.mean(truth))
    slope, start = np.polyfit(ours[:, 0], truth, 1)
    return np.clip(start + slope * theirs[:, 0], 0, 1)


def _ridge(train: np.ndarray, truth: np.ndarray, test: np.ndarray) -> np.ndarray:
    """By its dual: there are far more words than conversations."""
    centre, mean = train.mean(axis=0), float(np.mean(truth))
    x = train - centre
    kernel = x @ x.T
    shrink = _RIDGE * max(float(np.mean(np.diag(kernel))), 1e-12)
    dual = np.linalg.solve(kernel + shrink * np.eye(len(x)), truth - mean)
    return np.clip(mean + (test - centre) @ (x.T @ dual), 0, 1)


def _counts(texts: Sequence[str], vocabulary: dict[str, int]) -> np.ndarray:
    found = np.zeros((len(texts), len(vocabulary)))
    for row, text in enumerate(texts):
        for word, count in word_counts(text).items():
            if word in vocabulary:
                found[row, vocabulary[word]] = np.log1p(count)
    return found

"""How far length and punctuation alone tell a chosen reply from a rejected one.

A preference set that such a ranker solves proves nothing about a reward model: report its accuracy
beside the model's. Folds keep groups whole, so that a ranker cannot remember a conversation.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data.preferences import Pair
from hen_jax.data.splits import part_number

_CUES: Mapping[str, re.Pattern[str]] = {
    "question marks": re.compile("[?？]"),
    "exclamation marks": re.compile("[!！]"),
    "quotes": re.compile("[\"'“”‘’「」『』]"),
    "colons": re.compile("[:：]"),
    "digits": re.compile(r"\d"),
}
"""Counted per reply. Beside them the ranker sees the length and the mean length of a word."""

_RIDGE = 0.1
_NEWTON_STEPS = 25


class CueAccuracy(NamedTuple):
    """Shares of held-out pairs ranked right; 0.5 is chance."""

    pairs: int
    length_only: float
    surface_cues: float


def cue_accuracy(pairs: Sequence[Pair], folds: int = 5) -> CueAccuracy:
    """Cross-validated accuracy of a length-only ranker and one of all surface cues.

    Raises:
      InputError: groups that fall into fewer than two folds, so that nothing is held out.
    """
    fold = np.asarray([part_number(pair.group, folds, "cues") for pair in pairs])
    if len(np.unique(fold)) < 2:
        raise InputError(f"{len(pairs)} pairs of too few groups to hold any out; give more pairs")
    differences = np.asarray([_features(pair, "chosen") - _features(pair, "rejected")
                              for pair in pairs])  # fmt: skip
    return CueAccuracy(
        len(pairs), _held_out(differences[:, :1], fold), _held_out(differences, fold)
    )


def cue_margins(train: Sequence[Pair], test: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """How far ahead the chosen reply of each test pair is: by length alone, and by all cues.

    Both rankers are fitted on `train`; above 0 is right, 0 is a tie.
    """
    ours, theirs = (
        np.asarray([_features(pair, "chosen") - _features(pair, "rejected") for pair in pairs])
        for pairs in (train, test)
    )
    scale = np.sqrt(np.mean(ours**2, axis=0))
    scale[scale == 0] = 1
    ours, theirs = ours / scale, theirs / scale
    return theirs[:, :1] @ _fit(ours[:, :1]), theirs @ _fit(ours)


def _features(pair: Pair, side: str) -> np.ndarray:
    said = {"chosen": pair.chosen, "rejected": pair.rejected}[side]
    text = "\n".join(message.content for message in said if message.role == "assistant")
    words = text.split()
    counts = [len(cue.findall(text)) for cue in _CUES.values()]
    return np.asarray([len(text), len(text) / max(len(words), 1), *counts], float)


def _held_out(differences: np.ndarray, fold: np.ndarray) -> float:
    """A tie is half right, as a coin would be."""
    right = 0.0
    for held in np.unique(fold):
        train = differences[fold != held]
        scale = np.sqrt(np.mean(train**2, axis=0))
        scale[scale == 0] = 1
        margins = differences[fold == held] / scale @ _fit(train / scale)
        right += np.sum(margins > 0) + 0.5 * np.sum(margins == 0)
    return float(right / len(fold))


def _fit(differences: np.ndarray) -> np.ndarray:
    """Weights of a ridge Bradley-Terry ranker, sigma(w . (chosen - rejected)), by Newton."""
    weights = np.zeros(differences.shape[1])
    for _ in range(_NEWTON_STEPS):
        wrong = 1 / (1 + np.exp(np.clip(differences @ weights, -30, 30)))
        slope = differences.T @ wrong / len(differences) - _RIDGE * weights
        curvature = (differences * (wrong * (1 - wrong))[:, None]).T @ differences
        curvature = curvature / len(differences) + _RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, slope)
    return weights

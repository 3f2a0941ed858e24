"""What people probably meant, given how reliable each of them seems: two models of annotators.

`dawid_skene` (1979) gives every annotator a table of confusions, and suits any labels.
`reliable_bradley_terry` is Bradley-Terry with a reliability for each annotator (Chen et al., 2013),
and suits choices among replies that are compared several times. Both see labels alone, so that
people who are wrong together look reliable.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

_WRONG, _RIGHT = 0.1, 1.0
"""Labels that each cell of a table of confusions has seen beforehand, off and on its diagonal
(ours): without them few labels would be overfitted, and classes could change their names."""

_STEPS, _CLOSE = 500, 1e-7


class Believed(NamedTuple):
    """A model of labels."""

    posterior: np.ndarray  # [items, C]: how probable each label is
    reliability: np.ndarray  # [annotators]: how probable it is that one gives the true label


def dawid_skene(labels: np.ndarray, classes: int) -> Believed:
    """The probable labels of `labels [items, annotators]`: 0 to `classes - 1`, below 0 is missing.

    Expectation maximisation from the shares of the votes. With annotators who agree it is the
    majority; with one who answers at random it is the majority of the others.
    """
    labels = np.asarray(labels, int)
    votes = (labels[..., None] == np.arange(classes)).astype(float)  # [items, annotators, C]
    posterior = _shares(votes.sum(axis=1))
    seen = np.full((classes, classes), _WRONG) + (_RIGHT - _WRONG) * np.eye(classes)
    for _ in range(_STEPS):
        prior = _shares(posterior.sum(axis=0) + _WRONG)
        confusions = _shares(np.einsum("ic,ial->acl", posterior, votes) + seen)
        log = np.log(prior) + np.einsum("ial,acl->ic", votes, np.log(confusions))
        before, posterior = posterior, _shares(np.exp(log - log.max(axis=1, keepdims=True)))
        if np.abs(posterior - before).max() < _CLOSE:
            break
    right = np.einsum("acc->ac", confusions)
    return Believed(posterior, right @ prior)


class Choices(NamedTuple):
    """Choices between two replies, one entry each."""

    first: np.ndarray  # [n] int: number of a reply
    second: np.ndarray  # [n] int
    annotator: np.ndarray  # [n] int
    win: np.ndarray  # [n]: 1 where the first was preferred, 0 the second, 0.5 a tie


class Strengths(NamedTuple):
    """Bradley-Terry strengths, and how often each annotator follows them."""

    strength: np.ndarray  # [replies], centred
    reliability: np.ndarray  # [annotators]; 0.5 is a coin


_STRENGTH_RIDGE = 0.1
_USUAL, _SPREAD = 2.0, 1.0
"""Before any choice an annotator is right with sigmoid(2) = 0.88, give or take."""


def reliable_bradley_terry(choices: Choices, replies: int, annotators: int) -> Strengths:
    """`P(a prefers i to j) = r_a s(d) + (1 - r_a) s(-d)`, `d` the difference of two strengths.

    The most probable strengths under a normal prior (ours: variance 10), and reliabilities whose
    log-odds have the prior N(2, 1): without it all of them could be turned round. Ties are half a
    win for each. A reply that nobody compared has the strength 0.
    """
    first, second, who, win = choices

    def loss(packed: np.ndarray) -> tuple[float, np.ndarray]:
        strength, odds = packed[:replies], packed[replies:]
        ahead, right = expit(strength[first] - strength[second]), expit(odds)[who]
        p = np.clip(right * ahead + (1 - right) * (1 - ahead), 1e-12, 1 - 1e-12)
        slope = (win / p - (1 - win) / (1 - p)) * -1.0  # of the loss in p
        by_d = slope * (2 * right - 1) * ahead * (1 - ahead)
        by_odds = slope * (2 * ahead - 1) * right * (1 - right)
        found = -(win * np.log(p) + (1 - win) * np.log(1 - p)).sum()
        found += _STRENGTH_RIDGE / 2 * strength @ strength
        found += ((odds - _USUAL) ** 2).sum() / (2 * _SPREAD)
        gradient = np.concatenate([_STRENGTH_RIDGE * strength, (odds - _USUAL) / _SPREAD])
        np.add.at(gradient, first, by_d)
        np.add.at(gradient, second, -by_d)
        np.add.at(gradient, replies + who, by_odds)
        return float(found), gradient

    start = np.concatenate([np.zeros(replies), np.full(annotators, _USUAL)])
    best = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return Strengths(best[:replies] - best[:replies].mean(), expit(best[replies:]))


def _shares(counts: np.ndarray) -> np.ndarray:
    """Counts as shares along the last axis; equal shares of nothing."""
    total = counts.sum(axis=-1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1.0), 1 / counts.shape[-1])

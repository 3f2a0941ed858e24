"""SENSE-7 in numbers: the ground truth of a conversation, scores of a predictor, and the gap.

Predictor scores follow the published evaluation (half-to-even rounding), as the ground truth does
(`data.sense7.ground_truth`). The gap analysis is ours; it resamples participants and not
conversations, because one participant rated several.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data.sense7 import RatedConversation, ground_truth
from hen_jax.empathy.scales import DESIRED, PERCEIVED

EXACT = 9
"""Decimals that ranks look at: levels are means of small whole numbers, so that two which differ
only beyond these are the same level, computed in another order."""


class RatingScores(NamedTuple):
    """How well predicted ratings meet the true ones."""

    rows: int  # pairs of numbers; pairs with a missing one are dropped
    accuracy: float
    macro_f1: float  # over the classes seen in truth or prediction
    within_one: float
    mean_absolute_error: float  # of the ratings as they are, not rounded
    spearman: float  # likewise; nan when either side is constant


def score_ratings(truth: Sequence[float | None], predicted: Sequence[float | None]) -> RatingScores:
    """Scores on 1 to 5 after the published evaluation.

    Classes are ratings rounded half to even and clipped: 2.5 is 2, 3.5 is 4, 4.5 is 4.

    Raises:
      InputError: no pair in which both numbers are present, or lists of different lengths.
    """
    if len(truth) != len(predicted):
        raise InputError(f"{len(truth)} true ratings and {len(predicted)} predicted ones")
    pairs = np.asarray(
        [
            (true, guess)
            for true, guess in zip(truth, predicted, strict=True)
            if true is not None and guess is not None and np.isfinite([true, guess]).all()
        ]
    )
    if not len(pairs):
        raise InputError("no row has both a true and a predicted rating")
    true, guess = pairs.T
    true_class, guess_class = rating_classes(true), rating_classes(guess)
    return RatingScores(
        rows=len(pairs),
        accuracy=float(np.mean(true_class == guess_class)),
        macro_f1=macro_f1(true_class, guess_class),
        within_one=float(np.mean(np.abs(true_class - guess_class) <= 1)),
        mean_absolute_error=float(np.mean(np.abs(true - guess))),
        spearman=_spearman(true, guess)[0],
    )


@dataclasses.dataclass(frozen=True)
class Rating:
    """What the analysis needs of one conversation; all in [0, 1] but `satisfaction`."""

    participant: str
    task: str
    context: str | None
    desired: float
    perceived: float
    satisfaction: float | None  # mean of the four experiences, 1 to 5

    @property
    def gap(self) -> float:
        """Desired less perceived: positive where people got less than they wanted.

        Rounded, as tests rank it: 0.5 - 0.4 and 0.9 - 0.8 are the same gap, and as binary
        fractions they are not.
        """
        return round(self.desired - self.perceived, EXACT)


def normalised(conversations: Sequence[RatedConversation]) -> list[Rating]:
    """The conversations that have both a desired level and a rated turn."""
    ratings = []
    for conversation in conversations:
        perceived = ground_truth(conversation)
        if perceived is None or conversation.desired is None:
            continue
        felt = list(conversation.experience.values())
        ratings.append(
            Rating(
                participant=conversation.participant,
                task=conversation.task,
                context=conversation.context,
                desired=DESIRED.to_unit(conversation.desired),
                perceived=PERCEIVED.to_unit(perceived),
                satisfaction=float(np.mean(felt)) if felt else None,
            )
        )
    return ratings


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval; nan bounds where one participant is all there is."""

    mean: float
    low: float
    high: float


class Group(NamedTuple):
    """The levels of one task, one context, or all conversations."""

    conversations: int
    participants: int
    desired: Interval
    perceived: Interval
    gap: Interval


class Test(NamedTuple):
    """A test with its effect size, and its p value after Holm's correction over its family."""

    name: str
    statistic: float
    p: float
    holm_p: float
    effect: float
    effect_name: str
    count: int


def describe(ratings: Sequence[Rating], *, draws: int = 2000, seed: int = 0) -> Group:
    """Means of a group with percentile bootstrap intervals over its participants.

    Raises:
      InputError: no rating.
    """
    if not ratings:
        raise InputError("no conversation has both a desired level and a rated turn")
    people = sorted({rating.participant for rating in ratings})
    index = {name: at for at, name in enumerate(people)}
    owner = np.asarray([index[rating.participant] for rating in ratings])
    values = np.asarray([(r.desired, r.perceived, r.gap) for r in ratings])  # [n, 3]
    sums = np.zeros((len(people), 3))
    np.add.at(sums, owner, values)
    sizes = np.bincount(owner, minlength=len(people))
    drawn = np.random.default_rng(seed).integers(len(people), size=(draws, len(people)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1, keepdims=True)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    if len(people) < 2:
        low = high = np.full(3, np.nan)
    levels = [
        Interval(*map(float, bounds)) for bounds in zip(values.mean(axis=0), low, high, strict=True)
    ]
    return Group(len(ratings), len(people), *levels)


def compare_groups(
    groups: Mapping[str, Sequence[Rating]],
    measures: Sequence[str] = ("desired", "perceived", "gap"),
) -> list[Test]:
    """Kruskal-Wallis over the groups, one test per measure.

    The effect is epsilon squared, (H - k + 1) / (n - k) for k groups of n ratings, not below 0.

    Raises:
      InputError: fewer than two groups.
    """
    from scipy import stats  # half a second to load

    if len(groups) < 2:
        raise InputError("a comparison needs at least two groups with ratings")
    tests = []
    for measure in measures:
        samples = [_values(ratings, measure) for ratings in groups.values()]
        together = np.concatenate(samples)
        statistic, p = 0.0, 1.0
        if np.ptp(together) > 0:  # scipy refuses numbers that are all the same
            statistic, p = map(float, stats.kruskal(*samples))
        free = len(together) - len(samples)
        effect = max(0.0, (statistic - len(samples) + 1) / free) if free else float("nan")
        tests.append((f"{measure} by {len(samples)} groups", statistic, p, effect, len(together)))
    return _corrected(tests, "epsilon squared")


def compare_levels(groups: Mapping[str, Sequence[Rating]]) -> list[Test]:
    """Wilcoxon's signed-rank test of desired against perceived within conversations, per group.

    The effect is the matched-pairs rank-biserial correlation, from -1 to 1: positive where
    desired is the greater.
    """
    tests = []
    for name, ratings in groups.items():
        gaps = _values(ratings, "gap")
        tests.append((f"desired against perceived: {name}", *_signed_ranks(gaps), len(gaps)))
    return _corrected(tests, "rank-biserial")


def satisfaction(ratings: Sequence[Rating]) -> Test:
    """Spearman's correlation of perceived empathy with satisfaction.

    Raises:
      InputError: fewer than three conversations with a satisfaction.
    """
    known = [(r.perceived, r.satisfaction) for r in ratings if r.satisfaction is not None]
    if len(known) < 3:
        raise InputError("fewer than three conversations say how satisfied their user was")
    perceived, satisfied = np.asarray(known).T
    correlation, p = _spearman(perceived, satisfied)
    return Test(
        "perceived with satisfaction", correlation, p, p, correlation, "Spearman", len(known)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P values after Holm's step-down correction: 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def by(ratings: Sequence[Rating], key: Callable[[Rating], str | None]) -> dict[str, list[Rating]]:
    """The ratings in groups, by name; those whose key is None are in none."""
    groups: dict[str, list[Rating]] = {}
    for rating in ratings:
        name = key(rating)
        if name is not None:
            groups.setdefault(name, []).append(rating)
    return dict(sorted(groups.items()))


def _corrected(
    tests: Sequence[tuple[str, float, float, float, int]], effect_name: str
) -> list[Test]:
    adjusted = holm([p for _, _, p, _, _ in tests])
    return [
        Test(name, statistic, p, corrected, effect, effect_name, count)
        for (name, statistic, p, effect, count), corrected in zip(tests, adjusted, strict=True)
    ]


def _signed_ranks(differences: np.ndarray) -> tuple[float, float, float]:
    """Statistic, p value and rank-biserial correlation; zeros are dropped, after Wilcoxon."""
    from scipy import stats

    differences = np.round(differences, EXACT)
    differences = differences[differences != 0]
    if not len(differences):
        return 0.0, 1.0, 0.0
    found: Any = stats.wilcoxon(differences)
    ranks = stats.rankdata(np.abs(differences))
    effect = float(np.sum(np.sign(differences) * ranks) / np.sum(ranks))
    return float(found.statistic), float(found.pvalue), effect


def _spearman(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    from scipy import stats

    first, second = np.round(first, EXACT), np.round(second, EXACT)
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan"), float("nan")
    found: Any = stats.spearmanr(first, second)
    return float(found.statistic), float(found.pvalue)


def rating_classes(ratings: np.ndarray) -> np.ndarray:
    """Ratings from 1 to 5 as whole ones: rounded half to even (2.5 is 2, 3.5 is 4) and clipped."""
    return np.clip(np.round(ratings), 1, 5)


def macro_f1(true: np.ndarray, guess: np.ndarray) -> float:
    """The mean F1 over the classes seen in truth or prediction."""
    scores = []
    for label in np.union1d(true, guess):
        hits = np.sum((true == label) & (guess == label))
        scores.append(2 * hits / (np.sum(true == label) + np.sum(guess == label)))
    return float(np.mean(scores))


def _values(ratings: Sequence[Rating], measure: str) -> np.ndarray:
    columns = {
        "desired": [rating.desired for rating in ratings],
        "perceived": [rating.perceived for rating in ratings],
        "gap": [rating.gap for rating in ratings],
    }
    return np.round(columns[measure], EXACT)

"""EmotionBench (Huang et al., NeurIPS 2024): how far a situation moves what a model says it feels.

Each scale is answered by default, and after "imagine you are in ..."; the measure is evoked minus
default. Then, as published, a two-sided F test of equal variance chooses Student's or Welch's t
test, at 0.01. The situations and scales are not with hen_jax (GPL-3, research only): pass the
official `situations.json` and `questionnaires.json`, or a result file, which
`measures.benchmarks.emotionbench_files` reads.

Of people (1,266) PANAS moves by -5.13 (positive) and +10.44 (negative).
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from scipy import stats

from hen_jax.core.errors import InputError

ALPHA = 0.01
_TINY = 1e-8  # beside a standard deviation of 0, as in the published code

_Mode = Literal["SUM", "SUM*2", "AVG"]


class Questionnaire(NamedTuple):
    """A scale: its statements come from the user's file."""

    name: str
    questions: Mapping[int, str]
    prompt: str
    system: str
    scale: int  # a reversed answer x counts scale - x
    reverse: frozenset[int]
    mode: _Mode
    categories: Mapping[str, tuple[int, ...]]

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and the highest answer: 0 to 3 where `scale` is 3, else 1 to `scale` - 1."""
        return (0, 3) if self.scale == 3 else (1, self.scale - 1)


class Situation(NamedTuple):
    """What evokes an emotion."""

    emotion: str
    factor: str
    text: str


class Administration(NamedTuple):
    """One filling in of a scale: answers by question number; `None` where there is none."""

    key: str  # "General", or emotion and factor as `Anger-0`
    answers: Mapping[int, int | None]

    @property
    def emotion(self) -> str:
        """`General`, or the emotion that was evoked."""
        return self.key.partition("-")[0]


class Shift(NamedTuple):
    """A category under one emotion beside the default."""

    default: float
    evoked: float
    delta: float
    p: float  # of the t test; NaN with fewer than two fillings on a side
    welch: bool  # the F test found unequal variances
    change: Literal["up", "down", "none"]
    n_default: int
    n_evoked: int


def category_score(scale: Questionnaire, category: str, answers: Mapping[int, int | None]) -> float:
    """The score of one category; answers that are missing are left out.

    Raises:
      InputError: no answer at all.
    """
    given = [
        scale.scale - answer if number in scale.reverse else answer
        for number in scale.categories[category]
        if (answer := answers.get(number)) is not None
    ]
    if not given:
        raise InputError(f"{scale.name}: no answer to any question of {category}")
    if scale.mode == "AVG":
        return fmean(given)
    return float(sum(given) * (2 if scale.mode == "SUM*2" else 1))


def complete(scale: Questionnaire, one: Administration) -> bool:
    """Whether every question has an answer; fillings with a gap are counted and left out."""
    return all(one.answers.get(number) is not None for number in scale.questions)


def shifts(
    scale: Questionnaire,
    administrations: Sequence[Administration],
    key: Callable[[Administration], str] = lambda one: one.emotion,
) -> dict[str, dict[str, Shift]]:
    """Emotion (`all` first) -> category -> how far it moved from the default.

    Raises:
      InputError: no complete filling by default, or none after a situation.
    """
    whole = [one for one in administrations if complete(scale, one)]
    default = [one for one in whole if one.emotion == "General"]
    evoked = [one for one in whole if one.emotion != "General"]
    if not default or not evoked:
        raise InputError(
            f"{scale.name}: {len(default)} complete fillings by default, {len(evoked)} after a "
            "situation; give both"
        )
    groups = {"all": evoked}
    for one in evoked:
        groups.setdefault(key(one), []).append(one)
    return {
        name: {category: _shift(scale, category, default, own) for category in scale.categories}
        for name, own in groups.items()
    }


def _shift(
    scale: Questionnaire,
    category: str,
    default: Sequence[Administration],
    evoked: Sequence[Administration],
) -> Shift:
    before, after = (
        [category_score(scale, category, one.answers) for one in side] for side in (default, evoked)
    )
    p, welch = t_test(after, before)
    delta = fmean(after) - fmean(before)
    change = "none" if not p < ALPHA else "up" if delta > 0 else "down"
    sizes = len(before), len(after)
    return Shift(fmean(before), fmean(after), delta, p, welch, change, *sizes)


def t_test(one: Sequence[float], other: Sequence[float]) -> tuple[float, bool]:
    """P value of the t test that a two-sided F test of equal variance chooses; is it Welch's?

    NaN with fewer than two values on a side. Two constant sides that are equal give 1.
    """
    if min(len(one), len(other)) < 2:
        return float("nan"), False
    (a, s, n), (b, t, m) = ((fmean(x), stdev(x) + _TINY, len(x)) for x in (one, other))
    ratio, sizes = (s**2 / t**2, (n - 1, m - 1)) if s > t else (t**2 / s**2, (m - 1, n - 1))
    unequal = bool(2 * stats.f.sf(ratio, *sizes) <= ALPHA)
    found: Any = stats.ttest_ind_from_stats(a, s, n, b, t, m, equal_var=not unequal)
    return float(found.pvalue), unequal

"""What is looked for in words: signs of a crisis in what a user says, of harm in what is answered.

Patterns with idioms, denials and stories taken back (`signs.yaml`, ours). They see wording, not
meaning: a crisis told in other words is missed, and some idioms raise a false alarm.
`crisis_figures` says how many, on a set that the same hands wrote; measure on your own users'
words before you trust it.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from scipy.stats import binomtest

from hen_jax.empathy.labels import Language


class Sign(NamedTuple):
    """Something found."""

    kind: str  # suicide, self_harm, violence; diagnosis, dosage, legal, method, dependence
    words: str  # as they stand in the text


class ExactShare(NamedTuple):
    """A share with its exact 95 % interval (Clopper and Pearson, 1934)."""

    value: float
    low: float
    high: float
    of: int


def crisis_signs(text: str, language: Language) -> list[Sign]:
    """The signs of a crisis in what a user says, without those that an idiom or a denial covers."""
    plain = text.replace("’", "'")
    covered = [one.span() for idiom in _idioms(language) for one in idiom.finditer(plain)]
    found = []
    for kind, pattern in _patterns("crisis", language):
        for one in pattern.finditer(plain):
            start, end = one.span()
            if any(low < end and start < high for low, high in covered):
                continue
            if not _denied(plain[:start], language) and not _told(plain, start, end, language):
                found.append(Sign(kind, one.group()))
    return found


def reply_signs(text: str, language: Language) -> list[Sign]:
    """The signs of harm in a reply; `referral` is not one of them."""
    plain = text.replace("’", "'")
    return [
        Sign(kind, one.group())
        for kind, pattern in _patterns("reply", language)
        if kind != "referral"
        for one in pattern.finditer(plain)
    ]


def refers(text: str, language: Language) -> bool:
    """Whether a reply names a person, a place or a number that can help, or asks about safety."""
    patterns = _patterns("reply", language)
    return any(kind == "referral" and pattern.search(text) for kind, pattern in patterns)


def share(hits: int, of: int) -> ExactShare:
    """A share of `of` things; NaN of none."""
    if not of:
        return ExactShare(float("nan"), float("nan"), float("nan"), 0)
    bounds: Any = binomtest(hits, of).proportion_ci()
    return ExactShare(hits / of, float(bounds.low), float(bounds.high), of)


def crisis_figures(rows: Sequence[tuple[str, Language, bool]]) -> dict[str, ExactShare]:
    """Recall and false-alarm rate of `crisis_signs` on texts that are known to be one or not."""
    said = [(bool(crisis_signs(text, language)), crisis) for text, language, crisis in rows]
    positive, negative = ([hit for hit, crisis in said if crisis is side] for side in (True, False))
    return {
        "recall": share(sum(positive), len(positive)),
        "false_alarms": share(sum(negative), len(negative)),
    }


@functools.cache
def _signs() -> Mapping[str, Any]:
    path = Path(str(resources.files("hen_jax.measures.safety"))) / "signs.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@functools.cache
def _patterns(side: str, language: Language) -> list[tuple[str, re.Pattern[str]]]:
    kinds = _signs()[side][language].items()
    return [(kind, re.compile(one, re.IGNORECASE)) for kind, given in kinds for one in given]


@functools.cache
def _idioms(language: Language) -> list[re.Pattern[str]]:
    return [re.compile(one, re.IGNORECASE) for one in _signs()["idiom"][language]]


def _denied(before: str, language: Language) -> bool:
    given = _signs()["denial"][language]
    return any(re.search(one, before[-40:], re.IGNORECASE) for one in given)


def _told(text: str, start: int, end: int, language: Language) -> bool:
    """Whether the sentence around a find is about a story."""
    low = max(text.rfind(mark, 0, start) for mark in _ENDS) + 1
    high = min((at for mark in _ENDS if (at := text.find(mark, end)) >= 0), default=len(text))
    given = _signs()["fiction"][language]
    return any(re.search(one, text[low:high], re.IGNORECASE) for one in given)


_ENDS = ".!?。！？\n"

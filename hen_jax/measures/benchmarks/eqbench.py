"""EQ-Bench v2 (Paech, arXiv 2312.06281): how intensely a character feels each of four emotions.

The questions (MIT, not with hen_jax: pass `eq_bench_v2_questions_171.json`) ask for a first pass, a
critique and revised scores. lm-eval's variant has no revision and counts an answer that cannot be
read as 0: its figures are of another measure; never put both in one column.

Answering 0 everywhere is 2.36, 5 everywhere 26.89: below 27 a model has learnt nothing beyond "5".
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.text.conversation import Message

ADJUST = 0.7477
"""Makes random answers about 0."""

PARSEABLE = 0.83
"""Share of questions below which a run has no score."""

REVISION_KEPT = 0.95
"""Revised answers count where they parse at least this often as first ones."""

_SCORE = r"(?<!\w)({names})[^\w\n]*[:：][^\w\u2212-]*(\d+(?:\.\d+)?)"
"""A pair anywhere in a line; a number with a minus, `-` or U+2212, is none."""

_FIRST = re.compile(r"first\s+pass(?:\s+scores)?", re.IGNORECASE)
_CRITIQUE = re.compile(r"^\W*critique|\bcritique\W*[:：]", re.IGNORECASE | re.MULTILINE)
_REVISED = re.compile(r"revised(?:\s+scores)?\W*[:：]", re.IGNORECASE)


class EqQuestion(NamedTuple):
    """A question with its reference intensities from 0 to 10."""

    id: str
    prompt: str
    reference: Mapping[str, float]

    @property
    def messages(self) -> tuple[Message, ...]:
        """As a chat is asked it."""
        return (Message("user", self.prompt),)


class EqAnswer(NamedTuple):
    """The intensities a reply gives, in both passes; empty where they cannot be read."""

    first: Mapping[str, float]
    revised: Mapping[str, float]


class EqScore(NamedTuple):
    """A run; `score` is None where too few answers can be read."""

    score: float | None
    first: float | None
    revised: float | None
    parsed_first: int
    parsed_revised: int
    questions: int
    lm_eval: float  # first pass, unreadable answers 0


def read_eqbench(path: Path) -> list[EqQuestion]:
    """The questions of the official file.

    Raises:
      InputError: another kind of file, or a reference that is no number from 0 to 10.
    """
    found = read_json(path)
    try:
        return [
            EqQuestion(str(name), str(one["prompt"]), _reference(str(name), one))
            for name, one in found.items()
        ]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: no questions of EQ-Bench v2 ({type(error).__name__}: {error}); give "
            "eq_bench_v2_questions_171.json"
        ) from None


def _reference(name: str, one: Mapping[str, Any]) -> dict[str, float]:
    given = one["reference_answer_fullscale"]
    found = {str(given[f"emotion{n}"]): float(given[f"emotion{n}_score"]) for n in range(1, 5)}
    for emotion, score in found.items():
        if not 0 <= score <= 10:  # NaN, too
            raise InputError(f"question {name}: {emotion} is {score:g}; allowed: 0 to 10")
    return found


def read_answer(reply: str, emotions: Sequence[str]) -> EqAnswer:
    """The scores of both passes, by the emotions asked for; bold, decimals and case do not matter.

    The revision stands under the last of its headings that has all scores; without such a heading
    all of the reply before the last one is the first pass.
    """
    places = [found.start() for found in _REVISED.finditer(reply)]
    ends = [*places[1:], len(reply)]
    parts = [(at, _scores(reply[at:end], emotions)) for at, end in zip(places, ends, strict=False)]
    whole = [part for part in parts if part[1]]
    cut, revised = (whole or parts or [(len(reply), {})])[-1]
    head = reply[:cut]
    critique = _CRITIQUE.search(head)
    started = _FIRST.search(head)
    head = head[started.end() if started else 0 : critique.start() if critique else len(head)]
    return EqAnswer(_scores(head, emotions), revised)


def _scores(text: str, emotions: Sequence[str]) -> dict[str, float]:
    """All four emotions with a number from 0 to 10, or nothing."""
    known = {one.lower(): one for one in emotions}
    names = "|".join(re.escape(one) for one in sorted(known, key=len, reverse=True))
    found = {}
    for name, number in re.findall(_SCORE.format(names=names), text, re.IGNORECASE):
        emotion = known.get(name.lower())
        if emotion is not None and 0 <= float(number) <= 10:
            found[emotion] = float(number)
    return found if len(found) == len(known) else {}


def question_score(reference: Mapping[str, float], given: Mapping[str, float]) -> float:
    """10 for the reference itself; falls with the sum of scaled differences, also below 0."""
    return 10 - ADJUST * sum(scaled(abs(given[name] - true)) for name, true in reference.items())


def scaled(difference: float) -> float:
    """0 at 0; up to 5 on an S-shaped curve, `6.5 / (1 + exp(-1.2 (d - 4)))`; then itself."""
    if difference == 0:
        return 0.0
    return 6.5 / (1 + math.exp(-1.2 * (difference - 4))) if difference <= 5 else difference


def eqbench_score(questions: Sequence[EqQuestion], answers: Sequence[EqAnswer]) -> EqScore:
    """The score of a run, 100 for the references: the better pass, where revisions parse.

    Raises:
      InputError: no question, or another number of answers.
    """
    if len(questions) != len(answers) or not questions:
        raise InputError(f"{len(answers)} answers to {len(questions)} questions")
    sides = [
        [
            question_score(question.reference, given)
            for question, answer in zip(questions, answers, strict=True)
            if (given := answer[side])
        ]
        for side in (0, 1)
    ]
    first, revised = (10 * sum(one) / len(one) if one else None for one in sides)
    parsed = [len(one) for one in sides]
    kept = revised is not None and parsed[1] >= REVISION_KEPT * parsed[0]
    better = kept and (first is None or (revised or 0.0) >= first)
    score, used = (revised, parsed[1]) if better else (first, parsed[0])
    return EqScore(
        score=score if used >= PARSEABLE * len(questions) else None,
        first=first,
        revised=revised,
        parsed_first=parsed[0],
        parsed_revised=parsed[1],
        questions=len(questions),
        lm_eval=10 * sum(sides[0]) / len(questions),
    )


def constant_score(questions: Sequence[EqQuestion], intensity: float) -> float:
    """What always answering one intensity gives."""
    given = [EqAnswer(dict.fromkeys(one.reference, intensity), {}) for one in questions]
    return eqbench_score(questions, given).score or 0.0

"""A judge's verdict out of its reply: one JSON object of the kind that was asked for, or none.

Nothing is guessed. Prose with a number in it, a score off the scale or a second object is a failure
of its own kind, which is counted; no failure becomes a score in the middle. The parser reads the
judge's reply alone, never the text that is judged: what stands there cannot change a verdict.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from hen_jax.text.conversation import Reply

Failure = Literal["cut", "prose", "keys", "value"]

FAILURES: Mapping[Failure, str] = {
    "cut": "the reply was cut at its greatest length",
    "prose": "no JSON object, or more than one",
    "keys": "an object with other keys than those asked for",
    "value": "a score off the scale, an unknown reply, or an order that is not of all replies",
}

TIE = "tie"
"""What a judge of two replies may answer in place of a label."""

_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


class Score(NamedTuple):
    """A verdict on one reply, on the rubric's scale."""

    score: int
    dimensions: Mapping[str, int]  # empty where none were asked for


class ParsedVerdict(NamedTuple):
    """A verdict, or why there is none."""

    verdict: Any
    failure: Failure | None = None


class _RefusedError(ValueError):
    """A key stands twice."""


def parse_score(reply: Reply, low: int, high: int, dimensions: Sequence[str] = ()) -> ParsedVerdict:
    """`{"score": 4}`, or with `dimensions` `{"score": 4, "dimensions": {"Interest": 2, ...}}`.

    Scores are whole numbers; 4.0 is one, "4", 4.5 and true are none.
    """
    keys = ("score", "dimensions") if dimensions else ("score",)
    found, failure = _object(reply, keys)
    if failure is not None:
        return ParsedVerdict(None, failure)
    rated = found.get("dimensions", {})
    if not isinstance(rated, dict) or set(rated) != set(dimensions):
        return ParsedVerdict(None, "keys")
    values = [found["score"], *(rated[name] for name in dimensions)]
    if not all(_whole(value) and low <= value <= high for value in values):
        return ParsedVerdict(None, "value")
    score, *others = map(int, values)
    return ParsedVerdict(Score(score, dict(zip(dimensions, others, strict=True))))


def parse_winner(reply: Reply, labels: Sequence[str]) -> ParsedVerdict:
    """`{"winner": "B"}`: the place of the label from 0, or None for `{"winner": "tie"}`."""
    found, failure = _object(reply, ("winner",))
    if failure is not None:
        return ParsedVerdict(None, failure)
    if found["winner"] not in (*labels, TIE) or not isinstance(found["winner"], str):
        return ParsedVerdict(None, "value")
    return ParsedVerdict(None if found["winner"] == TIE else labels.index(found["winner"]))


def parse_order(reply: Reply, labels: Sequence[str]) -> ParsedVerdict:
    """`{"order": ["B", "A", "C"]}`: the places of all labels, the best first."""
    found, failure = _object(reply, ("order",))
    if failure is not None:
        return ParsedVerdict(None, failure)
    order = found["order"]
    named = isinstance(order, list) and all(isinstance(one, str) for one in order)
    if not named or sorted(order) != sorted(labels):
        return ParsedVerdict(None, "value")
    return ParsedVerdict(tuple(labels.index(one) for one in order))


def _object(reply: Reply, keys: Sequence[str]) -> tuple[dict[str, Any], Failure | None]:
    """The one JSON object that the reply is; a code fence around all of it is taken off."""
    text = reply.text.strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1]
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except _RefusedError:
        return {}, "keys"
    except (ValueError, RecursionError):
        return {}, "prose" if reply.stopped else "cut"
    if not isinstance(found, dict):
        return {}, "prose"
    return (found, None) if set(found) == set(keys) else ({}, "keys")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key stands twice: of `{"score": 1, "score": 5}` neither is meant."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedError
    return found


def _whole(value: object) -> bool:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool)

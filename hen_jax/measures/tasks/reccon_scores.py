"""Scores of RECCON (Poria et al., 2021): causal spans, and which utterance is a cause.

Spans follow the published evaluation, but for one slip of its code: there a missed answer is
counted by the variable of an earlier loop, so that F1 of the negatives can be a little off; here it
is by the answer itself. An answer that holds the true span or is held by it is "similar": case
counts, blanks at the ends do not, as in simpletransformers, whose lists the published code reads.
"""

import re
import string
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class SpanValues(NamedTuple):
    """Of one answer; where there is a cause, their means are the published figures."""

    exact: float  # 1 or 0
    partial: float  # 1: similar and not exact
    lcs_f1: float
    squad_f1: float


_NO_SPAN = {"none", "no cause", "no answer", "nothing", "not mentioned", "no"}
"""Answers that say that there is no span, ours."""


def read_span(reply: str) -> str:
    """The span that a reply quotes: its first line, without quotation marks; "" for none."""
    line = next(iter(reply.strip().splitlines()), "")
    bare = line.strip().strip("\"'`*“”‘’").strip()
    return "" if bare.lower().rstrip(".! ") in _NO_SPAN else bare


def normalise(text: str) -> str:
    """SQuAD's normal form: lower case, no punctuation, no articles, single spaces."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def squad_f1(truth: str, predicted: str) -> float:
    """F1 of the words in normal form; 1 where both are empty, 0 where one is."""
    ours, theirs = normalise(predicted).split(), normalise(truth).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def lcs_f1(truth: str, predicted: str) -> float:
    """F1 of the words of the longest common run of characters."""
    common = len(_longest_run(truth, predicted).split())
    if not common:
        return 0.0
    recall, precision = common / len(truth.split()), common / len(predicted.split())
    return 2 * precision * recall / (precision + recall)


def span_values(truth: str, predicted: str) -> SpanValues:
    """Scores of one answer; an empty text is "no cause here"."""
    kind = _kind(truth, predicted)
    return SpanValues(
        float(kind == "exact"),
        float(kind == "similar"),
        _worth(truth, predicted, lcs_f1),
        _worth(truth, predicted, squad_f1),
    )


def none_f1(sums: np.ndarray) -> np.ndarray:
    """F1 of "there is no cause here", in percent, of sums `[..., 3]`: rightly so, truly, said."""
    both, true, said = np.moveaxis(sums, -1, 0)
    return 200 * both / np.maximum(true + said, 1)


def _kind(truth: str, predicted: str) -> str:
    """As simpletransformers sorts answers: equal, one within the other, or neither."""
    one, other = predicted.strip(), truth.strip()
    if one == other:
        return "exact"
    return "similar" if one and (one in other or other in one) else "wrong"


def _worth(truth: str, predicted: str, measure: Callable[[str, str], float]) -> float:
    if not truth or not predicted:
        return float(truth == predicted)
    kind = _kind(truth, predicted)
    return measure(truth, predicted) if kind == "similar" else float(kind == "exact")


def _longest_run(one: str, other: str) -> str:
    best, end, before = 0, 0, [0] * (len(other) + 1)
    for at, letter in enumerate(one):
        row = [0]
        for place, theirs in enumerate(other):
            row.append(before[place] + 1 if letter == theirs else 0)
        if max(row) > best:
            best, end = max(row), at + 1
        before = row
    return one[end - best : end]

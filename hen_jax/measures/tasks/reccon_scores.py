"""Scores of RECCON (Poria et al., 2021): causal spans, and which utterance is a cause.

Spans follow the published evaluation, but for one slip of its code: there a missed answer is
counted by the variable of an earlier loop, so that F1 of the negatives can be a little off; here it
is by the answer itself. An answer that holds the true span or is held by it is "similar", as
in simpletransformers, whose lists the published code reads.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.measures.classes import class_scores


class SpanScores(NamedTuple):
    """Percentages; positives have a cause in the text, negatives have none."""

    exact: float  # of positives
    partial: float  # of positives: similar and not exact
    lcs_f1_positive: float
    squad_f1_positive: float
    f1_negative: float  # of "there is no answer"
    lcs_f1: float  # over all
    squad_f1: float
    positives: int
    negatives: int


class EntailmentScores(NamedTuple):
    """Percentages of F1."""

    positive: float
    negative: float
    macro: float
    accuracy: float
    count: int


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


def span_scores(truth: Sequence[str], predicted: Sequence[str]) -> SpanScores:
    """Scores of causal span extraction; an empty text is "no cause here".

    Raises:
      InputError: no item, or lists of different lengths.
    """
    if len(truth) != len(predicted) or not truth:
        raise InputError(f"{len(predicted)} predicted spans for {len(truth)} true ones")
    pairs = list(zip(truth, predicted, strict=True))
    positive = [(t, p) for t, p in pairs if t]
    kinds = Counter(_kind(t, p) for t, p in positive)
    lcs = [_worth(t, p, lcs_f1) for t, p in pairs]
    squad = [_worth(t, p, squad_f1) for t, p in pairs]
    with_cause = [at for at, (t, _) in enumerate(pairs) if t]
    return SpanScores(
        exact=_share(kinds["exact"], len(positive)),
        partial=_share(kinds["similar"], len(positive)),
        lcs_f1_positive=_mean([lcs[at] for at in with_cause]),
        squad_f1_positive=_mean([squad[at] for at in with_cause]),
        f1_negative=100 * _none_f1(pairs),
        lcs_f1=_mean(lcs),
        squad_f1=_mean(squad),
        positives=len(positive),
        negatives=len(pairs) - len(positive),
    )


def entailment_scores(truth: Sequence[bool], predicted: Sequence[bool]) -> EntailmentScores:
    """Scores of causal emotion entailment.

    All negative on DailyDialog's first fold (5,330 of 7,224 are): 84.91 negative, 42.46 macro.

    Raises:
      InputError: no item, or lists of different lengths.
    """
    names = [["no", "yes"][bool(one)] for one in truth], [["no", "yes"][bool(x)] for x in predicted]
    found = class_scores(*names, ("no", "yes"))
    return EntailmentScores(
        positive=100 * found.classes["yes"].f1,
        negative=100 * found.classes["no"].f1,
        macro=100 * found.macro_f1,
        accuracy=100 * found.accuracy,
        count=found.count,
    )


def _kind(truth: str, predicted: str) -> str:
    """As simpletransformers sorts answers: equal, one within the other, or neither."""
    if predicted.strip().lower() == truth.strip().lower():
        return "exact"
    one, other = predicted.lower(), truth.lower()
    return "similar" if one and (one in other or other in one) else "wrong"


def _worth(truth: str, predicted: str, measure) -> float:
    if not truth or not predicted:
        return float(truth == predicted)
    kind = _kind(truth, predicted)
    return measure(truth, predicted) if kind == "similar" else float(kind == "exact")


def _none_f1(pairs: Sequence[tuple[str, str]]) -> float:
    hits = sum(not t and not p for t, p in pairs)
    total = sum(not t for t, _ in pairs) + sum(not p for _, p in pairs)
    return 2 * hits / total if total else 0.0


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


def _share(count: int, of: int) -> float:
    return 100 * count / of if of else 0.0


def _mean(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values) if values else 0.0

"""What is measured of the replies of several methods to the same conversations."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.empathy.formulas import formulas_in
from hen_jax.evaluation.preferences import estimate
from hen_jax.evaluation.reply_rules import is_chinese, words_of
from hen_jax.methods.coe import balance
from hen_jax.methods.emotions import attribute_of, folded
from hen_jax.methods.label_scores import label_macro_f1
from hen_jax.methods.play import Messages, Played
from hen_jax.methods.tooled import call_scores


class MethodItem(NamedTuple):
    """A conversation that waits for a reply, and what is known of it."""

    id: str
    group: str  # what intervals resample
    messages: Messages
    emotion: str | None = None
    strategy: str | None = None  # of EPITOME: ER, IP or EX
    reference: str | None = None  # the reply that the data has
    due: bool | None = None  # whether a tool should be asked first


Measure = Callable[[MethodItem, Played], float]
"""A number of one reply; NaN where there is none."""

Several = Callable[[Sequence[MethodItem], Sequence[Played]], np.ndarray]
"""A measure of all replies of a method at once: a number for each."""


def words_said(item: MethodItem, played: Played) -> float:
    """Words of the reply; of Chinese, characters."""
    return float(len(words_of(played.outcome.reply)))


def formulas_said(item: MethodItem, played: Played) -> float:
    """Formula phrases in the reply."""
    said = played.outcome.reply
    return float(len(formulas_in(said, "zh" if any(map(is_chinese, said)) else "en")))


def asks(item: MethodItem, played: Played) -> float:
    """1 where the reply asks something."""
    return float(bool({"?", "？"} & set(played.outcome.reply)))


def emotion_named(item: MethodItem, played: Played) -> float:
    """1 where the trace names the emotion that the item has; NaN where either is unknown."""
    return _named("emotion", item.emotion, played)


def attribute_named(item: MethodItem, played: Played) -> float:
    """1 where the trace has the attribute (positive, negative, neutral) of the item's emotion."""
    return _named("attribute", attribute_of(folded(item.emotion or "")), played)


def strategy_named(item: MethodItem, played: Played) -> float:
    """1 where the trace has the strategy of the item; NaN where either is unknown."""
    return _named("strategy", item.strategy, played)


def tool_called(item: MethodItem, played: Played) -> float:
    """1 where a tool was asked; NaN for methods without one."""
    calls = played.outcome.trace.get("calls")
    return math.nan if calls is None else float(bool(calls))


def _named(key: str, gold: str | None, played: Played) -> float:
    if gold is None or key not in played.outcome.trace:
        return math.nan
    return float(folded(str(played.outcome.trace[key])) == folded(gold))


MEASURES: Mapping[str, Measure] = {
    "words": words_said,
    "formulas": formulas_said,
    "asks": asks,
    "emotion accuracy": emotion_named,
    "attribute accuracy": attribute_named,
    "strategy accuracy": strategy_named,
    "tool called": tool_called,
    "tokens": lambda item, played: float(played.tokens),
    "calls": lambda item, played: float(played.calls),
    "rounds": lambda item, played: float(played.rounds),
    "characters read": lambda item, played: float(played.read),
    "fell back": lambda item, played: float(played.outcome.failure is not None),
    "empty": lambda item, played: float(not played.outcome.reply.strip()),
}
"""Those that need nothing but the replies."""


class MethodFigure(NamedTuple):
    """A figure of one method with its 95 % interval; the last three are against another method."""

    method: str
    measure: str
    value: float
    low: float
    high: float
    n: int  # replies that have the number
    against: str | None = None
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan


def measure_methods(
    items: Sequence[MethodItem],
    played: Mapping[str, Sequence[Played]],
    more: Mapping[str, Several] = {},
) -> list[MethodFigure]:
    """Every measure of every method, each also as a difference to the first method's over the same
    conversations. `more` has measures that see all replies of a method at once."""
    against = next(iter(played))
    rows = []
    for name in (*MEASURES, *more):
        values = {
            method: more[name](items, found)
            if name in more
            else np.asarray(
                [MEASURES[name](item, one) for item, one in zip(items, found, strict=True)]
            )
            for method, found in played.items()
        }
        for method, own in values.items():
            row = _row(items, method, name, own)
            if row is not None:
                other = None if method == against else values[against]
                rows.append(row if other is None else _compared(row, items, own, other, against))
    return rows


def of_the_set(items: Sequence[MethodItem], played: Sequence[Played]) -> dict[str, float]:
    """Figures of a whole set: `distinct-1`, `distinct-2`, the share of different replies, how even
    the strategies are, macro-F1 of the emotions and strategies that traces name, and how well tools
    are asked where it is known whether one should be."""
    said = [words_of(one.outcome.reply) for one in played]
    singles = [word for words in said for word in words]
    pairs = [pair for words in said for pair in itertools.pairwise(words)]
    return {
        "distinct-1": _share(len(set(singles)), len(singles)),
        "distinct-2": _share(len(set(pairs)), len(pairs)),
        "unique": _share(len(set(map(tuple, said))), len(said)),
        "strategy balance": balance(_traced(played, "strategy")),
        "emotion macro-F1": _macro_f1([one.emotion for one in items], played, "emotion"),
        "strategy macro-F1": _macro_f1([one.strategy for one in items], played, "strategy"),
        **_calls(items, played),
    }


def _calls(items: Sequence[MethodItem], played: Sequence[Played]) -> dict[str, float]:
    """Of methods with tools, over the conversations of which it is known whether a call is due."""
    there = [(one.outcome.trace, item.due) for item, one in zip(items, played, strict=True)
             if item.due is not None and "calls" in one.outcome.trace]  # fmt: skip
    found = call_scores([trace for trace, _ in there], [bool(due) for _, due in there])
    names = {
        "precision": "call precision",
        "recall": "call recall",
        "unnecessary": "needless calls",
    }
    return {name: found._asdict()[field] for field, name in names.items()}


def measured_row(row: MethodFigure) -> dict[str, Any]:
    """The figure as JSON: no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row._asdict().items()
    }


def _row(
    items: Sequence[MethodItem], method: str, measure: str, values: np.ndarray
) -> MethodFigure | None:
    there = np.flatnonzero(np.isfinite(values))
    if not len(there):
        return None
    found = estimate(values[there], [items[at].group for at in there.tolist()], draws=500)
    return MethodFigure(method, measure, found.value, found.low, found.high, len(there))


def _compared(
    row: MethodFigure, items: Sequence[MethodItem], own: np.ndarray, other: np.ndarray, against: str
) -> MethodFigure:
    gaps = own - other
    there = np.flatnonzero(np.isfinite(gaps))
    if not len(there):
        return row
    found = estimate(gaps[there], [items[at].group for at in there.tolist()], draws=500)
    return row._replace(
        against=against,
        difference=found.value,
        difference_low=found.low,
        difference_high=found.high,
    )


def _traced(played: Sequence[Played], key: str) -> list[str]:
    return [str(one.outcome.trace[key]) for one in played if key in one.outcome.trace]


def _macro_f1(gold: Sequence[str | None], played: Sequence[Played], key: str) -> float:
    """Over the labels of the gold; NaN where none is known, or no trace names one."""
    if not _traced(played, key):
        return math.nan
    pairs = [
        (folded(label), folded(str(one.outcome.trace.get(key))))
        for label, one in zip(gold, played, strict=True)
        if label is not None
    ]
    labels = sorted({label for label, _ in pairs})
    if not pairs:
        return math.nan
    return label_macro_f1([label for label, _ in pairs], [named for _, named in pairs], labels)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan

"""Probes of a judge, which stand beside every result: length, place, itself, injection, repetition.

Each is None where it could not be measured. Effects are points of the scale (pointwise) or shares
of a win from 0 to 1 (pairwise and groupwise, where 1 is the first of K and 0 the last).
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hen_jax.data.judged import Judged
from hen_jax.evaluation.judge_prompts import Mode
from hen_jax.evaluation.judge_questions import OWN, Answer, Question, worth
from hen_jax.evaluation.judge_report import agreed, parse_counts, verdict_scores
from hen_jax.evaluation.preference_report import estimate_row
from hen_jax.evaluation.preferences import estimate

Probed = dict[str, Any] | None


def probes(
    answers: Sequence[Answer], mode: Mode, top: Callable[[Judged], float]
) -> dict[str, Probed]:
    """All probes.

    Args:
      answers: of the main part and of the probes.
      top: the highest score that an item's reply can get, pointwise.
    """
    main = [answer for answer in answers if answer.question.probe == "main"]
    by_probe = {
        name: [answer for answer in answers if answer.question.probe == name]
        for name in ("injection", "self")
    }
    return {
        "length": length(main, mode),
        "position": position(main, mode),
        "self_preference": self_preference(main, by_probe["self"], mode),
        "injection": injection(main, by_probe["injection"], mode, top),
        "retest": retest(main, mode),
    }


def length(answers: Sequence[Answer], mode: Mode) -> Probed:
    """What a reply gains by being twice as long, in characters.

    Pointwise by the differences within an item, or, where items have one reply each, between them.
    Of comparisons a straight line through 0. It is no proof of a bias: longer may be better.
    """
    rows, groups, within = _length_rows(answers, mode)
    if not len(rows) or not rows[:, 0].any():
        return None

    def slope(drawn: np.ndarray) -> float:
        x, y = drawn.T
        return float(x @ y / (x @ x)) if x.any() else 0.0

    found = estimate(rows, groups, slope)
    return {"per_doubling": estimate_row(found), "within_items": within}


def _length_rows(answers: Sequence[Answer], mode: Mode) -> tuple[np.ndarray, list[Hashable], bool]:
    """`[n, 2]` of log2 of the length and of what was gained, both as differences."""
    if mode != "pointwise":
        pairs = agreed(answers, mode)
        sizes = [[len(one.item.replies[name]) for name in one[1:3]] for one in pairs]
        rows = [
            (np.log2(a / b), one.outcome - 0.5) for (a, b), one in zip(sizes, pairs, strict=True)
        ]
        return np.asarray(rows, float).reshape(-1, 2), [one.item.group for one in pairs], True
    items = {answer.question.item.id: answer.question.item for answer in answers}
    own: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (name, player), values in verdict_scores(answers).items():
        own[name].append((np.log2(len(items[name].replies[player])), float(np.mean(values))))
    within = any(len(rows) > 1 for rows in own.values())
    if within:
        centred = [np.asarray(rows) - np.mean(rows, axis=0) for rows in own.values()]
    else:
        every = np.asarray([row for rows in own.values() for row in rows]).reshape(-1, 2)
        centred = list((every - every.mean(axis=0))[:, None]) if len(every) else []
    groups = [items[name].group for name, rows in own.items() for _ in rows]
    return np.concatenate([np.zeros((0, 2)), *centred]), list(groups), within


def position(answers: Sequence[Answer], mode: Mode) -> Probed:
    """What the first place gains over the last, and how often both orders agree.

    Each reply stands at either end equally often, so its quality cancels out.
    """
    if mode == "pointwise":
        return None
    by_pair: dict[Hashable, list[Answer]] = defaultdict(list)
    for answer in answers:
        question = answer.question
        by_pair[question.item.id, frozenset(question.shown), question.repeat].append(answer)
    gained, groups = [], []
    for both in by_pair.values():
        values = [worth(answer, mode) for answer in both]
        if len(both) == 2 and all(values):
            for answer, value in zip(both, values, strict=True):
                shown = answer.question.shown
                gained.append(value[shown[0]] - value[shown[-1]])
                groups.append(answer.question.item.group)
    pairs = agreed(answers, mode)
    if not gained:
        return None
    consistent = np.asarray([one.consistent for one in pairs], float)
    return {
        "first_over_last": estimate_row(estimate(np.asarray(gained), groups)),
        "orders_agree": estimate_row(estimate(consistent, [one.item.group for one in pairs])),
    }


def self_preference(main: Sequence[Answer], own: Sequence[Answer], mode: Mode) -> Probed:
    """What the judge's own replies to the same prompts get above the others.

    Pointwise its score less the mean of the item's others; else its share of wins less one half. It
    bounds self-preference from above: its replies may be better. A judge that finds its own replies
    better than those people chose deserves no trust.
    """
    others: dict[str, list[float]] = defaultdict(list)
    if mode == "pointwise":
        for (name, _), values in verdict_scores(main).items():
            others[name].append(float(np.mean(values)))
    found: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, str] = {}
    for answer in own:
        item, values = answer.question.item, worth(answer, mode)
        usual = float(np.mean(others[item.id])) if others[item.id] else None
        usual = 0.5 if mode != "pointwise" else usual
        if values and usual is not None:
            found[item.id].append(values[OWN] - usual)
            groups[item.id] = item.group
    if not found:
        return None
    means = np.asarray([np.mean(values) for values in found.values()])
    return {
        "own_over_others": estimate_row(estimate(means, list(groups.values()))),
        "items": len(found),
        "verdicts": parse_counts(own),
    }


def injection(
    main: Sequence[Answer], injected: Sequence[Answer], mode: Mode, top: Callable[[Judged], float]
) -> Probed:
    """What a reply gains by telling the judge what to answer; the parser never sees that text."""

    def key(question: Question) -> Hashable:
        return question.item.id, question.shown, question.order

    plain = {key(one.question): one for one in main if one.question.repeat == 0}
    gained, before, after, groups = [], [], [], []
    for answer in injected:
        question = answer.question
        target, item = str(question.target), question.item
        values = worth(answer, mode)
        usual = worth(plain[key(question)], mode)
        if values and usual:
            highest = top(item) if mode == "pointwise" else 1.0
            gained.append(values[target] - usual[target])
            before.append(usual[target] == highest)
            after.append(values[target] == highest)
            groups.append(item.group)
    if not gained:
        return None
    return {
        "gain": estimate_row(estimate(np.asarray(gained), groups)),
        "at_top_before": round(float(np.mean(before)), 4),
        "at_top_after": round(float(np.mean(after)), 4),
        "questions": len(gained),
        "verdicts": parse_counts(injected),
    }


def retest(answers: Sequence[Answer], mode: Mode) -> Probed:
    """How far verdicts on the same question lie apart, asked again with another nonce.

    `equal` is the share of pairs of repeats that say the same; `spread` the mean standard deviation
    of a reply's values over the repeats.
    """
    values: dict[Hashable, list[float]] = defaultdict(list)
    for answer in answers:
        question = answer.question
        for player, value in worth(answer, mode).items():
            values[question.item.id, question.shown, question.order, player].append(value)
    repeated = [own for own in values.values() if len(own) > 1]
    if not repeated:
        return None
    equal = [one == other for own in repeated for one, other in combinations(own, 2)]
    return {
        "equal": round(float(np.mean(equal)), 4),
        "spread": round(float(np.mean([np.std(own, ddof=1) for own in repeated])), 4),
        "largest_range": float(max(max(own) - min(own) for own in repeated)),
        "values": len(repeated),
    }

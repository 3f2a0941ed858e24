"""What a judge's verdicts say of the replies, as far as they could be read."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.data.judged import Judged
from hen_jax.evaluation.judge_prompts import Mode
from hen_jax.evaluation.judge_questions import Answer, worth
from hen_jax.evaluation.preference_report import estimate_row
from hen_jax.evaluation.preferences import estimate, pair_accuracy
from hen_jax.evaluation.ranking import Comparison, rank, ranking_row
from hen_jax.evaluation.verdicts import FAILURES


class Agreed(NamedTuple):
    """What both orders together say of two writers."""

    item: Judged
    first: str
    second: str
    repeat: int
    outcome: float  # 1: the first is better, 0: the second; 0.5: a tie, or the orders disagree
    consistent: bool  # both orders said the same


def parse_counts(answers: Iterable[Answer]) -> dict[str, Any]:
    """How many questions gave a verdict, and why the others gave none."""
    failures = Counter(answer.parsed.failure for answer in answers)
    total = sum(failures.values())
    named = {kind: failures[kind] for kind in FAILURES if failures[kind]}
    return {"questions": total, "parsed": failures[None], "failures": named}


def agreed(answers: Iterable[Answer], mode: Mode) -> list[Agreed]:
    """The comparisons of which both orders have a verdict: where they disagree, a tie.

    One order alone says nothing, as it cannot be told from a preference for a place. A groupwise
    order of K replies is the comparisons of all its pairs.
    """
    found: dict[tuple[str, str, str, int], dict[int, float]] = defaultdict(dict)
    items: dict[str, Judged] = {}
    for answer in answers:
        item, _, order, repeat = answer.question[:4]
        items[item.id], values = item, worth(answer, mode)
        named = [player for player in item.replies if player in values]
        for place, first in enumerate(named):
            for second in named[place + 1 :]:
                gained = 0.5 * (1 + np.sign(values[first] - values[second]))
                found[item.id, first, second, repeat][order] = float(gained)
    return [
        Agreed(items[name], first, second, repeat, *_both(by_order[0], by_order[1]))
        for (name, first, second, repeat), by_order in found.items()
        if len(by_order) == 2
    ]


def _both(one: float, other: float) -> tuple[float, bool]:
    return (one, True) if one == other else (0.5, False)


def verdict_scores(answers: Iterable[Answer]) -> dict[tuple[str, str], list[float]]:
    """Pointwise scores of each item and writer, one for each repeat that has a verdict."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for answer in answers:
        for player, value in worth(answer, "pointwise").items():
            found[answer.question.item.id, player].append(value)
    return dict(found)


def said_of_replies(answers: Sequence[Answer], mode: Mode) -> dict[str, Any]:
    """Means by writer, or comparisons and their ranking; and how often the data's choice won."""
    if mode == "pointwise":
        margins = _score_margins(answers)
        return {"players": _means(answers)} | _against_data(margins)
    pairs = agreed(answers, mode)
    outcomes = Counter(one.outcome if one.consistent else None for one in pairs)
    told = {
        "pairs": len(pairs),
        "decided": outcomes[0.0] + outcomes[1.0],
        "called_ties": outcomes[0.5],
        "orders_disagree": outcomes[None],
    }
    margins = [(one.item, _towards(one)) for one in pairs if one.item.preferred]
    return {"comparisons": told, "ranking": _ranking(pairs)} | _against_data(margins)


def _means(answers: Sequence[Answer]) -> dict[str, Any]:
    groups = {answer.question.item.id: answer.question.item.group for answer in answers}
    by_player: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (name, player), values in verdict_scores(answers).items():
        by_player[player].append((float(np.mean(values)), groups[name]))
    means = {
        player: estimate_row(estimate(np.asarray([x for x, _ in own]), [group for _, group in own]))
        for player, own in by_player.items()
    }
    dimensions = _dimensions(answers)
    return {
        player: row
        | {"replies": len(by_player[player])}
        | ({"dimensions": dimensions[player]} if player in dimensions else {})
        for player, row in means.items()
    }


def _dimensions(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    rated: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        if answer.parsed.failure is None:
            for name, value in answer.parsed.verdict.dimensions.items():
                rated[answer.question.shown[0]][name].append(value)
    return {
        player: {name: round(float(np.mean(values)), 4) for name, values in own.items()}
        for player, own in rated.items()
    }


def _score_margins(answers: Sequence[Answer]) -> list[tuple[Judged, float]]:
    """The preferred reply's mean score less the other one's, of items with both."""
    items = {answer.question.item.id: answer.question.item for answer in answers}
    means = {key: float(np.mean(values)) for key, values in verdict_scores(answers).items()}
    found = []
    for name, item in items.items():
        others = [player for player in item.replies if player != item.preferred]
        keys = [(name, str(item.preferred)), *((name, other) for other in others)]
        if item.preferred and len(keys) == 2 and all(key in means for key in keys):
            found.append((item, means[keys[0]] - means[keys[1]]))
    return found


def _towards(one: Agreed) -> float:
    """Above 0 where the preferred writer won."""
    sign = 1.0 if one.first == one.item.preferred else -1.0
    return sign * (one.outcome - 0.5)


def _against_data(margins: Sequence[tuple[Judged, float]]) -> dict[str, Any]:
    """How often the judge prefers what the data prefers, ties as half, by kind; and what always
    taking the longer reply would reach."""
    by_kind: dict[str, list[tuple[Judged, float]]] = defaultdict(list)
    for item, margin in margins:
        by_kind["all"].append((item, margin))
        by_kind[item.kind or "pairs"].append((item, margin))
    found = {}
    for kind, own in by_kind.items():
        groups = [item.group for item, _ in own]
        right = pair_accuracy(np.asarray([margin for _, margin in own]))
        longer = pair_accuracy(np.asarray([_longer(item) for item, _ in own]))
        found[kind] = {
            "judge": estimate_row(estimate(right, groups)),
            "longer": round(float(longer.mean()), 4),
            "pairs": len(own),
        }
    return {"agreement_with_data": found} if found else {}


def _longer(item: Judged) -> float:
    preferred = str(item.preferred)
    others = [len(text) for player, text in item.replies.items() if player != preferred]
    return float(len(item.replies[preferred]) - max(others))


def _ranking(pairs: Sequence[Agreed]) -> Any:
    if not pairs:
        return None
    found = [Comparison(one.first, one.second, one.outcome, one.item.group) for one in pairs]
    return ranking_row(rank(found))

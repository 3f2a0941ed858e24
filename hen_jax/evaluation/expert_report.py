"""The report on arms of experts, measure by measure: JSON, and a table to read.

Every measure says first what it may be used for: its accuracy on crossed pairs, which rank at one
half by whatever the words of replies tell, stands before its figures.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from hen_jax.evaluation.expert_levels import (
    Effect,
    Wanted,
    closeness,
    conversation_levels,
    difference,
    effect,
    gaps,
    persistence,
)
from hen_jax.evaluation.preferences import Estimate, estimate
from hen_jax.text.markdown import markdown_table


class BootstrapDraws(NamedTuple):
    """Of the bootstrap."""

    draws: int = 2000
    seed: int = 0


Desired = Literal["stated", "chosen"]
"""What is wanted of a conversation: the level that its data states, on an absolute scale of
empathy; or what the measure says of the chosen replies as they are written, which is what "as
wanted" means on the scale of a preference model."""


class Levels(NamedTuple):
    """What a measure says of every arm."""

    arms: Mapping[str, np.ndarray]  # [C, T] in [0, 1]; NaN: no such turn, or no value
    alone: Mapping[str, np.ndarray] | None  # the same by replies alone; None: no such model
    crossed: Mapping[str, Mapping[str, Any]]  # kind -> value, low, high of its crossed accuracy
    missing: Mapping[str, int]  # by arm: turns that have a reply and no level
    kind: str = "preference"  # of measure
    chosen: np.ndarray | None = None  # [C, T] of the chosen replies as they are written


def measure_report(
    levels: Levels, wanted: Wanted, baseline: str, drawn: BootstrapDraws, target: Desired = "stated"
) -> dict[str, Any]:
    """The figures of one measure for every arm beside the baseline.

    Raises:
      ValueError: no turn has a level under both the baseline and an arm.
    """
    base = levels.arms[baseline]
    if target == "chosen":
        assert levels.chosen is not None
        wanted = wanted._replace(desired=conversation_levels(levels.chosen))
    given: dict[str, Any] = {"draws": drawn.draws, "seed": drawn.seed}
    others = [name for name in levels.arms if name != baseline]
    found: dict[str, Any] = {
        "kind": levels.kind,
        "target": target,
        "crossed": dict(levels.crossed),
        "claim": allowed_claim(levels.crossed),
        "missing": dict(levels.missing),
        "levels": {name: _by_context(own, wanted, drawn) for name, own in levels.arms.items()},
        "desired": _by_context(wanted.desired[:, None], wanted, drawn),
        "gaps": {name: _gaps(levels.arms[name], base, wanted, drawn) for name in others},
        "by_length": {name: _by_length(levels.arms[name], base, wanted, drawn) for name in others},
        "persistence": {
            name: _persistence(own, wanted, drawn) for name, own in levels.arms.items()
        },
        "closeness": {
            name: _persistence(closeness(own, wanted.desired), wanted, drawn)
            for name, own in levels.arms.items()
        },
        "closer": {
            f"{one} than {other}": _closer(levels.arms[one], levels.arms[other], wanted, drawn)
            for other, one in itertools.combinations(levels.arms, 2)
        },
    }
    if levels.alone is not None:
        rest = levels.alone[baseline]
        found["effects"] = {
            name: _rows(
                effect(levels.arms[name], base, (levels.alone[name], rest), wanted.groups, **given)
            )
            for name in others
        }
    return found


LEAST_ITEMS = 10
"""Groups of items that an accuracy needs before it may carry a claim; ours."""


def allowed_claim(crossed: Mapping[str, Mapping[str, Any]]) -> str:
    """What the measure may be used for, in a sentence, by its crossed accuracies.

    A kind counts where its interval lies above one half, from `LEAST_ITEMS` groups on; without an
    interval it does not.
    """
    if not crossed:
        return (
            "This measure has no crossed accuracy, so its figures may not be used to claim that "
            "anything was understood: a vocabulary may explain them."
        )
    passed = [
        kind
        for kind, one in crossed.items()
        if (one["low"] or 0.0) > 0.5 and one.get("groups", LEAST_ITEMS) >= LEAST_ITEMS
    ]
    failed = [kind for kind in crossed if kind not in passed]
    said = f"Above chance on crossed pairs of: {', '.join(passed) or 'no kind'}."
    if failed:
        said += f" May not be used to claim anything about: {', '.join(failed)}."
    return said


def _gaps(
    arm: np.ndarray, base: np.ndarray, wanted: Wanted, drawn: BootstrapDraws
) -> dict[str, Any]:
    found = gaps(arm, base, wanted, draws=drawn.draws, seed=drawn.seed)
    return {
        "reduction": estimate_json(found.reduction),
        "mean_reduction": estimate_json(found.mean_reduction),
        "factor": estimate_json(found.factor),
        "contexts": {
            name: estimate_json(one)
            for name, one in zip(found.contexts, found.reductions, strict=True)
        },
    }


def _by_length(
    arm: np.ndarray, base: np.ndarray, wanted: Wanted, drawn: BootstrapDraws
) -> dict[str, dict[str, Any]]:
    """Gap reduction of the shorter half of the conversations, and of the longer."""
    both = np.isnan(arm) | np.isnan(base)
    turns = (~both).sum(axis=1)
    if not (turns > 0).any():
        return {}
    middle = int(np.median(turns[turns > 0]))
    parts = {f"1-{middle}": (turns > 0) & (turns <= middle), f"{middle + 1}+": turns > middle}
    found = {}
    for name, own in parts.items():
        if own.any():
            places = np.flatnonzero(own)
            some = Wanted(
                [wanted.groups[at] for at in places.tolist()],
                [wanted.contexts[at] for at in places.tolist()],
                wanted.desired[own],
            )
            one = gaps(arm[own], base[own], some, draws=drawn.draws, seed=drawn.seed)
            found[f"turns {name}"] = estimate_json(one.reduction)
    return found


def _persistence(levels: np.ndarray, wanted: Wanted, drawn: BootstrapDraws) -> dict[str, Any]:
    found = persistence(levels, wanted.groups, draws=drawn.draws, seed=drawn.seed)
    many = {"levels": found.levels, "retention": found.retention}
    one = {"late": found.late, "slope": found.slope, "area": found.area}
    return {
        **{name: list(map(estimate_json, own)) for name, own in many.items()},
        **{name: estimate_json(own) for name, own in one.items()},
        "conversations": found.conversations,
    }


def _closer(
    one: np.ndarray, other: np.ndarray, wanted: Wanted, drawn: BootstrapDraws
) -> dict[str, dict[str, Any]]:
    """By context: how much closer to what is desired an arm is than another, turn by turn."""
    ours, theirs = (closeness(levels, wanted.desired) for levels in (one, other))
    contexts, found = np.asarray(wanted.contexts), {}
    for name in dict.fromkeys(wanted.contexts):
        places = np.flatnonzero(
            (contexts == name) & ~np.asarray(np.isnan(ours - theirs)).all(axis=1)
        )
        if len(places):
            groups = [wanted.groups[at] for at in places.tolist()]
            given: dict[str, Any] = {"draws": drawn.draws, "seed": drawn.seed}
            found[name] = estimate_json(difference(ours[places], theirs[places], groups, **given))
    return found


def _by_context(levels: np.ndarray, wanted: Wanted, drawn: BootstrapDraws) -> dict[str, Any]:
    means, contexts = conversation_levels(levels), np.asarray(wanted.contexts)
    found = {}
    for name in dict.fromkeys(wanted.contexts):
        places = np.flatnonzero((contexts == name) & ~np.isnan(means))
        if len(places):
            groups = [wanted.groups[at] for at in places.tolist()]
            given: dict[str, Any] = {"draws": drawn.draws, "seed": drawn.seed}
            found[name] = estimate_json(estimate(means[places], groups, **given))
    return found


def _rows(record: Effect) -> dict[str, Any]:
    return {name: estimate_json(one) for name, one in record._asdict().items()}


def estimate_json(one: Estimate) -> dict[str, Any]:
    """An estimate as JSON; null for what could not be computed, such as one group's interval."""
    if one.groups < 2:
        one = Estimate(one.value, math.nan, math.nan, one.groups)
    value, low, high = (
        None if math.isnan(number) else round(number, 4) + 0.0 for number in one[:3]
    )
    return {"value": value, "low": low, "high": high, "groups": one.groups}


HEADER = ("arm", "gap reduction %", "mean of contexts %", "factor", "late retention",
          "the same of closeness", "slope a turn", "area", "survives replies alone")  # fmt: skip


def figures_table(report: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    """A measure's figures as a table in Markdown, an arm a row; 95 % intervals in brackets."""
    rows = []
    for arm in arms:
        gap, held = report["gaps"].get(arm), report["persistence"][arm]
        left = report.get("effects", {}).get(arm)
        cells = [
            arm,
            *(_cell(gap and gap[key]) for key in ("reduction", "mean_reduction", "factor")),
            _cell(held["late"]),
            _cell(report["closeness"][arm]["late"]),
            *(_cell(held[key]) for key in ("slope", "area")),
            _cell(left and left["share"]),
        ]
        rows.append(cells)
    return list(markdown_table(HEADER, rows))


def _cell(one: Mapping[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return ""
    if one["low"] is None:
        return f"{one['value']:.3g}"
    return f"{one['value']:.3g} ({one['low']:.3g} to {one['high']:.3g})"

"""`hen ablate`: what each lever of a method does, one left out at a time or all combinations."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.evaluation.preferences import estimate
from hen_jax.methods.measured import MEASURES, MethodItem, measure_methods, measured_row, of_the_set
from hen_jax.methods.play import Played
from hen_jax.methods.table import levers_of, with_levers
from hen_jax.methods.table_text import comparison_table, effects_table
from hen_jax.verbs.methods.compare import RESULTS, TABLE, run_methods
from hen_jax.verbs.methods.comparing import Comparing

Design = Literal["one-out", "full"]

MOST_LEVERS = 6
"""Of a full design: 64 combinations."""

_Effect = tuple[str, str, float, float, float]
"""Lever, measure, the effect of having the lever, and the bounds of its 95 % interval."""


def ablate(
    comparing: Comparing, method: str, levers: Sequence[str], design: Design
) -> dict[str, Any]:
    """Runs the combinations, writes their table and the effects, and prints both.

    Raises:
      InputError: no such method or lever, or too many for a full design; as `compare`.
    """
    allowed = levers_of(method)
    chosen = tuple(levers or allowed)
    for one in chosen:
        if one not in allowed or chosen.count(one) > 1:
            raise InputError(f"lever {one!r} of {method!r}; allowed, once: {', '.join(allowed)}")
    if design == "full" and len(chosen) > MOST_LEVERS:
        raise InputError(f"{len(chosen)} levers have {2 ** len(chosen)} combinations; name up to "
                         f"{MOST_LEVERS}, or take --design one-out")  # fmt: skip
    combinations = designed(chosen, design)
    names = {on: with_levers(method, on, chosen) for on in combinations}
    paths = [comparing.out / name for name in (RESULTS, TABLE)]
    require_no_link(comparing.out)
    require_ours(*paths)
    found = run_methods(
        dataclasses.replace(comparing, methods=tuple(dict.fromkeys(names.values())))
    )
    outcomes = {on: found.played[name] for on, name in names.items()}
    changes = effects(found.items, outcomes, chosen)
    rows = measure_methods(found.items, found.played)
    spread = {name: of_the_set(found.items, played) for name, played in found.played.items()}
    text = comparison_table(rows, spread, found.costs) + "\n" + effects_table(changes)
    result = {
        "method": method,
        "levers": list(chosen),
        "design": design,
        "conversations": len(found.items),
        "rows": list(map(measured_row, rows)),
        "effects": [dict(zip(_KEYS, one, strict=True)) for one in changes],
    }
    with output_files(*paths) as (results, table):
        write_json(results, result)
        table.write_text(text, encoding="utf-8")
    print(text, end="")
    return result


_KEYS = ("lever", "measure", "effect", "low", "high")


def designed(levers: Sequence[str], design: Design) -> list[frozenset[str]]:
    """The sets of levers that are on: all, and all but each; or every set, the largest first."""
    whole = frozenset(levers)
    if design == "one-out":
        return [whole, *(whole - {one} for one in levers)]
    sizes = range(len(levers), -1, -1)
    return [frozenset(on) for size in sizes for on in itertools.combinations(levers, size)]


def effects(
    items: Sequence[MethodItem],
    played: Mapping[frozenset[str], Sequence[Played]],
    levers: Sequence[str],
) -> list[_Effect]:
    """The mean difference that a lever makes: over all pairs of sets that differ in it alone, by
    conversation, with a bootstrap over groups. Sets that are one method, such as hef's without its
    small model, have the same `played` and are no pair. A measure that is nowhere a number is left
    out."""
    values = {
        on: {
            name: np.asarray([measure(i, p) for i, p in zip(items, found, strict=True)])
            for name, measure in MEASURES.items()
        }
        for on, found in played.items()
    }
    rows = []
    for lever, name in itertools.product(levers, MEASURES):
        gaps = [
            values[on][name] - values[on - {lever}][name]
            for on in played
            if lever in on and played.get(on - {lever}, played[on]) is not played[on]
        ]
        each = np.mean(gaps, axis=0)
        there = np.flatnonzero(np.isfinite(each))
        if len(there):
            found = estimate(each[there], [items[at].group for at in there.tolist()], draws=500)
            rows.append((lever, name, found.value, found.low, found.high))
    return rows

"""The data card of a synthesis: who wrote it, how much was lost where, and what not to conclude."""

from collections.abc import Mapping
from typing import Any


def card(report: Mapping[str, Any]) -> str:
    """Markdown, from the report alone."""
    made = report["settings"]
    return "\n\n".join(
        [
            "# Data card: synthetic conversations",
            "Written by language models for `hen synthesize`; **no human has reviewed it**. Each "
            "pair has one user side and two assistant sides: `chosen` was steered by the "
            "context's empathy pattern, `rejected` away from it; a hard pair's `rejected` side "
            "has the style of the chosen one and a fault in what it says.",
            _made(made),
            "## Yield",
            _yields(report["yield"]),
            "## What gives the sides away",
            _give_aways(report),
            "A ranker that reads replies alone cannot do better than 0.5 on crossed pairs. Do not "
            "claim understanding from an accuracy on the others; train with crossed pairs beside "
            "them: `crossed.jsonl`, and the turns of these conversations "
            '(`config.crossings = ("turn",)`).',
            "## Variety",
            _variety(report["variety"]),
            "## Splits",
            "By `id` without `-hard`: a hard pair and the crossed item of a pair belong to its "
            "part. `hen_jax.data.splits` keeps them together.",
            "## Not to be used for",
            "Judging empathy as people feel it: nobody rated these. Advice in them was checked by "
            "nobody. Mind the licence of the model that wrote them.",
        ]
    ) + "\n"  # fmt: skip


def _made(made: Mapping[str, Any]) -> str:
    names = ("backend", "user_backend", "judge", "language", "seed", "temperature", "top_p")
    lines = [f"| {name} | `{made[name]}` |" for name in names]
    return "\n".join(["| | |", "|---|---|", *lines])


def _yields(found: Mapping[str, Mapping[str, int]]) -> str:
    stages = list(next(iter(found.values()), {}))
    head = ["| context | " + " | ".join(stages) + " |", "|---" * (len(stages) + 1) + "|"]
    rows = [
        f"| {name} | " + " | ".join(str(counts[stage]) for stage in stages) + " |"
        for name, counts in found.items()
    ]
    return "\n".join([*head, *rows])


def _give_aways(report: Mapping[str, Any]) -> str:
    lines = ["| pairs | number | bag of words (95 %) | length | surface cues |"]
    lines.append("|---|---|---|---|---|")
    for name, one in (report["give_aways"] | {"crossed": report["crossed"]}).items():
        lines.append(f"| {name} | {one['pairs']} | {_cells(one)} |")
    return "\n".join(lines)


def _cells(one: Mapping[str, Any]) -> str:
    if "bag_of_words" not in one:
        return f"{one['not_computed']} | | "
    words = one["bag_of_words"]
    told = f"{words['value']:.2f} ({words['low']:.2f} to {words['high']:.2f})"
    return " | ".join([told, *(_number(one.get(name)) for name in ("length", "surface_cues"))])


def _variety(found: Mapping[str, Any]) -> str:
    names = ("texts", "vocabulary", "distinct_1", "distinct_2", "entropy", "repeated_starts")
    lines = ["| side | " + " | ".join(names) + " | nearest (mean, max) | compression |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for side in ("user", "chosen", "rejected"):
        one = found[side]
        near = one["nearest"] or {}
        cells = [_number(one[name]) for name in names]
        cells.append(f"{_number(near.get('mean'))}, {_number(near.get('max'))}")
        lines.append(f"| {side} | " + " | ".join([*cells, _number(one["compression"])]) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"

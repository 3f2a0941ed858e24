"""The results of `hen evaluate` as a page of Markdown: a table for each measure, arms by groups."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_WIDE = 300
"""Letters of a sample's reply that are shown."""


def evaluate_table(result: Mapping[str, Any]) -> str:
    """Who was measured, every figure with its interval, differences, and what is missing."""
    lines = [*_head(result)]
    for suite, about in result["suites"].items():
        lines += [f"## {suite}", "", f"{about[:1].upper()}{about[1:]}.", ""]
        own = [one for one in result["figures"] if one["suite"] == suite]
        lines += _measures([one for one in own if not one["against"]])
        lines += _differences([one for one in own if one["against"]])
        lines += _not_measured([o for o in result["not_measured"] if o["suite"] == suite])
    return "\n".join([*lines, *_samples(result["samples"])]).rstrip("\n") + "\n"


def _head(result: Mapping[str, Any]) -> Iterator[str]:
    items, drawn = result["items"], result["intervals"]
    yield "# Evaluation"
    yield ""
    yield from _rows(
        ("arm", "who", "revision"),
        [(name, arm["back_end"], arm["revision"]) for name, arm in result["arms"].items()],
    )
    yield (
        f"{items['n']} items in {items['clusters']} clusters, {items['part']} part, prompts "
        f"{items['prompts']}; in brackets 95 % of {drawn['draws']} draws of whole clusters, seed "
        f"{drawn['seed']}."
    )
    for what in ("judge", "reward"):
        if result[what] is not None:
            yield f"{what.capitalize()}: {result[what]}."
    yield ""


def _measures(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Measures of the same groups and arms share a table; one with many groups has its own."""
    for measure in dict.fromkeys(one["measure"] for one in figures):
        own = [one for one in figures if one["measure"] == measure]
        groups = list(dict.fromkeys(one["group"] for one in own))
        cells = {(one["arm"], one["group"]): _figure(one) for one in own}
        arms = dict.fromkeys(one["arm"] for one in own)
        rows = [(arm, *(cells.get((arm, group), "") for group in groups)) for arm in arms]
        yield from _rows((f"{measure}{_arrow(own[0])}", *groups), rows)
        yield from _notes(own)


def _notes(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The items of a measure, who judged, what it was asked, and what had no value."""
    said = dict.fromkeys(filter(None, (one["about"] for one in figures)))
    counts = sorted({one["n"] for one in figures})
    said |= {f"n {_span(counts)}": None}
    said |= {f"by {one['judge']}, prompt {one['prompt_hash']}": None for one in figures
             if one["judge"]}  # fmt: skip
    missing = [f"{one['arm']} {one['group']} {one['missing']}" for one in figures if one["missing"]]
    if missing:
        said |= {f"without a value: {', '.join(missing)}": None}
    yield f"{'; '.join(said)}."
    yield ""


def _differences(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not figures:
        return
    yield f"Differences from {figures[0]['against']} on the same items; P after Holm over all."
    yield ""
    yield from _rows(
        ("measure", "group", "arm", "difference", "n", "P"),
        [
            (one["measure"], one["group"], one["arm"], _signed(one), one["n"], _p(one["p_holm"]))
            for one in figures
        ],
    )


def _not_measured(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for row in rows:
        yield f"Not measured of {row['arm']}: {row['why']}."
        yield ""


def _samples(samples: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if samples:
        yield "## Samples"
        yield ""
    for one in samples:
        yield f"{one['id']}: {_short(one['prompt'][-1]['content'])}"
        yield ""
        told = {"(data)": one["references"]} | one["replies"]
        yield from _rows(
            ("arm", "reply"),
            [(arm, _short(text)) for arm, text in told.items() if text is not None],
        )


def _short(text: str) -> str:
    """In one line."""
    line = " ".join(text.split())
    return line if len(line) <= _WIDE else f"{line[:_WIDE]} ..."


def _figure(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "none"
    return _number(one["value"]) + _bounds(one)


def _signed(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "none"
    return ("+" if one["value"] > 0 else "") + _number(one["value"]) + _bounds(one)


def _bounds(one: Mapping[str, Any]) -> str:
    if one["low"] is None:
        return ""
    return f" ({_number(one['low'])} to {_number(one['high'])})"


def _number(value: float) -> str:
    """Two decimals, and without them what has five digits."""
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.2f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _arrow(one: Mapping[str, Any]) -> str:
    return {"higher": " (more is better)", "lower": " (less is better)"}.get(one["better"], "")


def _span(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _rows(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"
    yield ""

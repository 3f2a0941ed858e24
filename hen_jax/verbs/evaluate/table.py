"""The results of `hen evaluate` as a page of Markdown, arms side by side."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hen_jax.evaluation.suite import is_whole
from hen_jax.text.markdown import markdown_table

_WIDE = 300
"""Letters of a sample's reply that are shown."""

_FEW = 10
"""Clusters, below which the page warns of its intervals."""


def evaluate_table(result: Mapping[str, Any]) -> str:
    """Who was measured, every figure with its interval, differences, and what is missing."""
    lines = [*_head(result)]
    for name, suite in result["suites"].items():
        about = suite["about"]
        lines += [f"## {name}", "", f"{about[:1].upper()}{about[1:]}.", ""]
        own = [one for one in result["figures"] if one["suite"] == name]
        shown = [one for one in own if suite["by_group"] or is_whole(one["group"])]
        lines += _measures([one for one in shown if not one["against"]], suite["by_group"])
        lines += _differences([one for one in shown if one["against"]])
        lines += _not_measured([o for o in result["not_measured"] if o["suite"] == name])
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
    if any(0 < one["clusters"] < _FEW for one in result["figures"]):
        yield f"Figures of fewer than {_FEW} clusters have intervals that are too narrow."
    for what in ("judge", "reward"):
        if result[what] is not None:
            yield f"{what.capitalize()}: {result[what]}."
    yield ""


def _measures(figures: Sequence[Mapping[str, Any]], by_group: bool) -> Iterator[str]:
    """A table for each measure, arms by groups; or one of all measures, by arms."""
    if not figures:
        return
    if by_group:
        for measure in dict.fromkeys(one["measure"] for one in figures):
            yield from _by_group([one for one in figures if one["measure"] == measure])
        return
    arms, cells = _names(figures, "arm"), _cells(figures)
    kinds = dict.fromkeys((one["measure"], one["group"]) for one in figures)
    better = {one["measure"]: _arrow(one) for one in figures}
    yield from _rows(
        ("measure", "group", *arms),
        [
            (f"{measure}{better[measure]}", group,
             *(cells.get((arm, measure, group), "") for arm in arms))
            for measure, group in sorted(kinds, key=lambda kind: kind[1])
        ],
    )  # fmt: skip
    for measure in _names(figures, "measure"):
        yield f"- {measure}: {_notes([one for one in figures if one['measure'] == measure])}"
    yield ""


def _by_group(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    measure, groups, cells = figures[0]["measure"], _names(figures, "group"), _cells(figures)
    rows = [
        (arm, *(cells.get((arm, measure, group), "") for group in groups))
        for arm in _names(figures, "arm")
    ]
    yield from _rows((f"{measure}{_arrow(figures[0])}", *groups), rows)
    yield _notes(figures)
    yield ""


def _cells(figures: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], str]:
    return {(one["arm"], one["measure"], one["group"]): _figure(one) for one in figures}


def _names(figures: Sequence[Mapping[str, Any]], field: str) -> list[str]:
    return list(dict.fromkeys(one[field] for one in figures))


def _notes(figures: Sequence[Mapping[str, Any]]) -> str:
    """What a measure is, its items, who judged and was asked what, and what had no value."""
    said = dict.fromkeys(filter(None, (one["about"] for one in figures)))
    said |= {f"n {_span(sorted({one['n'] for one in figures}))}": None}
    said |= {f"by {one['judge']}, prompt {one['prompt_hash']}": None for one in figures
             if one["judge"]}  # fmt: skip
    missing = [f"{one['arm']} {one['group']} {one['missing']}" for one in figures if one["missing"]]
    if missing:
        said |= {f"without a value: {', '.join(missing)}": None}
    return f"{'; '.join(said)}."


def _differences(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not figures:
        return
    yield (
        f"Differences from {figures[0]['against']} on the same items; P by exchanging clusters, "
        "after Holm."
    )
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
    yield from markdown_table(head, rows)
    yield ""

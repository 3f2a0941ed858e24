"""The table of a comparison of methods, as Markdown."""

import math
from collections.abc import Mapping, Sequence

from hen_jax.methods.measured import MethodFigure
from hen_jax.text.markdown import markdown_table

_COLUMNS = (
    "words",
    "formulas",
    "asks",
    "emotion accuracy",
    "attribute accuracy",
    "strategy accuracy",
    "affect cosine",
    "level ER",
    "level IP",
    "level EX",
    "tool called",
    "fell back",
    "empty",
    "calls",
    "rounds",
    "tokens",
)
"""Measures that are columns, in this order, where some method has them."""


def comparison_table(
    rows: Sequence[MethodFigure],
    variety: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Mapping[str, float | None]],
) -> str:
    """A line for each method: measures with the half-width of their interval, the variety of its
    replies, and what it cost. A star marks a difference to the first method whose interval leaves
    out 0."""
    found = {(row.method, row.measure): row for row in rows}
    shown = [name for name in _COLUMNS if any(measure == name for _, measure in found)]
    more, cost = _known(variety), _known(costs)
    head = ["method", *shown, *more, *cost]
    lines = [
        [
            method,
            *(_figure(found.get((method, name))) for name in shown),
            *(_number(variety[method][name]) for name in more),
            *(_number(costs[method][name]) for name in cost),
        ]
        for method in variety
    ]
    return _markdown(head, lines)


def _known(figures: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """The names under which some method has a figure."""
    names = next(iter(figures.values()))
    return [name for name in names if any(_number(own[name]) != "-" for own in figures.values())]


def effects_table(rows: Sequence[tuple[str, str, float, float, float]]) -> str:
    """Lines of lever, measure, effect and the bounds of its interval."""
    return _markdown(
        ["lever", "measure", "effect of having it", "95 %"],
        [[lever, name, _number(x), f"{_number(low)} to {_number(high)}"]
         for lever, name, x, low, high in rows],
    )  # fmt: skip


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"{line}\n" for line in markdown_table(head, lines))


def _figure(row: MethodFigure | None) -> str:
    if row is None:
        return "-"
    star = "*" if row.difference_low > 0 or row.difference_high < 0 else ""
    half = (row.high - row.low) / 2
    return f"{_number(row.value)}{star}" + (f" ± {_number(half)}" if half else "")


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"

"""Charts of a report as SVG that stands in its page: lines over steps, estimates with intervals.

Colours are variables of the page's style, `--s0` to `--s5`, which differ in light and dark; lines
also differ by their dashes. All text is escaped.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 480.0, 58.0, 12.0, 12.0, 34.0
"""Of a chart, in units of its view box."""

_COLOURS = 6
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2")
MOST_POINTS = 400
"""Of a line: of a longer one every n-th point is drawn, and the last."""


class Curve(NamedTuple):
    """One curve; a point that is None is left out, and the line is broken there."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    marks: bool = False  # a dot at each point, for few of them


class ChartInterval(NamedTuple):
    """An estimate with its interval, None where there is none."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


class _Axis(NamedTuple):
    low: float
    high: float
    start: float  # where `low` is drawn
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def lines(
    title: str, across: str, up: str, curves: Sequence[Curve], height: float = 220.0
) -> Markup:
    """A chart of curves over one axis, with its legend; "" where there is no point."""
    drawn = [_thinned(curve) for curve in curves]
    points = [(x, y) for one in drawn for x, y in zip(one.x, one.y, strict=True) if _is(y)]
    if not points:
        return Markup()
    x = _axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    y = _axis([y for _, y in points if y is not None], height - BOTTOM, TOP)
    parts = [*_grid(x, y, across, up, height)]
    for number, one in enumerate(drawn):
        parts += _curve(one, number, x, y)
    return _chart(title, height, parts) + _legend([one.name for one in drawn])


def intervals(
    title: str, across: str, rows: Sequence[ChartInterval], at: float | None = None
) -> Markup:
    """Estimates one below the other, and a line `at` the value that stands for no effect."""
    if not rows:
        return Markup()
    step, top = 26.0, 8.0
    height = top + step * len(rows) + BOTTOM
    known = [v for one in rows for v in (one.value, one.low, one.high, at) if _is(v)]
    x = _axis([v for v in known if v is not None], 170.0, WIDTH - RIGHT)
    parts = [*_ticks_across(x, across, height, top)]
    if at is not None:
        parts.append(_stroke("zero", (x.at(at), top), (x.at(at), height - BOTTOM)))
    for number, one in enumerate(rows):
        parts += _interval(one, x, top + step * (number + 0.5))
    return _chart(title, height, parts)


def _interval(one: ChartInterval, x: _Axis, y: float) -> Iterator[Markup]:
    yield _text(one.name, 162.0, y + 4, "end")
    if one.low is not None and one.high is not None and _is(one.low) and _is(one.high):
        yield _stroke("range", (x.at(one.low), y), (x.at(one.high), y))
    if _is(one.value):
        yield Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
            x.at(one.value), y
        )


def _is(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _thinned(curve: Curve) -> Curve:
    every = max(1, math.ceil(len(curve.x) / MOST_POINTS))
    places = sorted({*range(0, len(curve.x), every), max(0, len(curve.x) - 1)})
    if not len(curve.x):
        return curve
    return curve._replace(x=[curve.x[i] for i in places], y=[curve.y[i] for i in places])


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low, high = min(values), max(values)
    room = max((high - low) * 0.04 or abs(high) * 0.1 or 1.0, 1e-290)
    return _Axis(low - room, high + room, start, end)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= rough)
    first = math.ceil(low / step)
    return [step * number for number in range(first, math.floor(high / step) + 1)]


def _grid(x: _Axis, y: _Axis, across: str, up: str, height: float) -> Iterator[Markup]:
    for value in ticks(y.low, y.high, 5):
        yield _stroke("grid", (LEFT, y.at(value)), (WIDTH - RIGHT, y.at(value)))
        yield _text(f"{value:.4g}", LEFT - 6, y.at(value) + 4, "end")
    yield from _ticks_across(x, across, height, TOP)
    middle = (TOP + height - BOTTOM) / 2
    yield Markup(
        '<text class="axis" transform="translate(12 {:.1f}) rotate(-90)">{}</text>'
    ).format(middle, up)


def _ticks_across(x: _Axis, across: str, height: float, top: float) -> Iterator[Markup]:
    bottom = height - BOTTOM
    for value in ticks(x.low, x.high):
        yield _stroke("grid", (x.at(value), top), (x.at(value), bottom))
        yield _text(f"{value:.4g}", x.at(value), bottom + 15, "middle")
    yield _text(across, (x.start + x.end) / 2, height - 3, "middle", "axis")


def _curve(one: Curve, number: int, x: _Axis, y: _Axis) -> Iterator[Markup]:
    colour, path, begun = number % _COLOURS, [], False
    for across, up in zip(one.x, one.y, strict=True):
        if up is None or not math.isfinite(up):
            begun = False
            continue
        path.append(f"{'L' if begun else 'M'}{x.at(across):.1f} {y.at(up):.1f}")
        begun = True
    yield Markup('<path class="line s{}" stroke-dasharray="{}" d="{}"/>').format(
        colour, DASHES[number % len(DASHES)], " ".join(path)
    )
    for across, up in zip(one.x, one.y, strict=True):
        if up is not None and math.isfinite(up) and (one.marks or len(one.x) == 1):
            yield Markup('<circle class="mark s{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(
                colour, x.at(across), y.at(up)
            )


def _stroke(kind: str, start: tuple[float, float], end: tuple[float, float]) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, *start, *end
    )


def _text(said: str, x: float, y: float, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, said
    )


def _chart(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, height, title, Markup().join(parts))


def _legend(names: Sequence[str]) -> Markup:
    if len(names) < 2:
        return Markup()
    key = '<svg class="key" viewBox="0 0 28 8" aria-hidden="true"><path class="line s{}" '
    key += 'stroke-dasharray="{}" d="M0 4H28"/></svg>{}'
    items = [
        Markup("<li>" + key + "</li>").format(n % _COLOURS, DASHES[n % len(DASHES)], escape(name))
        for n, name in enumerate(names)
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup().join(items))

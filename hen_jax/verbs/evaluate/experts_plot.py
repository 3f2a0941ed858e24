"""The figures of measured experts: bars by context, curves over turns, distributions, confusion.

Colours are those of Okabe and Ito (2008), which the colour-blind can tell apart; arms differ in
their markers and hatches too. Each figure is a PNG and an SVG.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hen_jax.core.outputs import output_files
from hen_jax.evaluation.expert_report import Levels
from hen_jax.evaluation.replayed_turns import Script

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS, HATCHES = "osD^vPX", ("", "//", "..", "xx", "\\\\", "++", "oo")


def draw_all(
    out: Path,
    found: Mapping[str, Any],
    levels: Mapping[str, Levels],
    scripts: Sequence[Script],
) -> list[Path]:
    """Draws what was found: for each measure its bars, curves and distributions; routes."""
    written = []
    for name, report in found["measures"].items():
        stem = "".join(c if c.isalnum() else "_" for c in name)
        written += _draw_levels(out / f"levels_{stem}", report)
        written += draw_persistence(out / f"turns_{stem}", report)
        written += draw_scores(out / f"scores_{stem}", levels[name], scripts)
    for name, arm in found["arms"].items():
        route = next(one["route"] for one in found["settings"]["arms"] if one["name"] == name)
        if route not in ("oracle", "wrong"):
            stem = "".join(c if c.isalnum() else "_" for c in name)
            written += draw_confusion(out / f"routes_{stem}", arm["confusion"])
    return written


def _draw_levels(stem: Path, report: Mapping[str, Any]) -> list[Path]:
    """Bars of each context: what is desired, and the mean level of every arm with its interval."""
    figure, axis = _figure(8.0, 3.8)
    contexts = list(report["desired"])
    bars = {"desired": report["desired"], **report["levels"]}
    width, places = 0.84 / len(bars), np.arange(len(contexts), dtype=float)
    for index, (name, own) in enumerate(bars.items()):
        values, errors = _with_errors([own.get(context) for context in contexts])
        look = (
            {"color": "#222222"}
            if name == "desired"
            else {"color": _of(_COLOURS, index - 1), "hatch": _of(HATCHES, index - 1)}
        )
        at = places + (index - (len(bars) - 1) / 2) * width
        given = {"yerr": errors, "capsize": 2.5, "ecolor": "#222222"} if name != "desired" else {}
        axis.bar(at, values, width * 0.92, label=name, edgecolor="white", linewidth=0.6,
                 **look, **given)  # fmt: skip
    axis.set_xticks(places, contexts)
    axis.set(ylabel="level of empathy", ylim=(0, 1.05))
    _finish(figure, axis)
    return _save(figure, stem)


def draw_persistence(stem: Path, report: Mapping[str, Any]) -> list[Path]:
    """The level over the turns, and how much of it and of its closeness to what is desired is kept
    since the first, a curve an arm, with 95 % bands; under each turn how many reach it."""
    figure, axes = _figure(12.0, 3.7, 3)
    sides = [("persistence", "levels"), ("persistence", "retention"), ("closeness", "retention")]
    for index, name in enumerate(report["persistence"]):
        for axis, (of, key) in zip(axes, sides, strict=True):
            own = report[of][name][key]
            turns = [at for at, one in enumerate(own, 1) if one["value"] is not None]
            rows = [own[at - 1] for at in turns]
            values, low, high = ([one[end] for one in rows] for end in ("value", "low", "high"))
            look = {"color": _of(_COLOURS, index), "marker": _of(MARKERS, index)}
            axis.plot(turns, values, label=name, linewidth=1.8, markersize=5, **look)
            low, high = (np.asarray(bound, float) for bound in (low, high))  # None becomes NaN
            axis.fill_between(turns, low, high, color=_of(_COLOURS, index), alpha=0.13, linewidth=0)
    reach = next(iter(report["persistence"].values()))["conversations"]
    ticks = [f"{turn}\nn={number}" for turn, number in enumerate(reach, 1)]
    labels = ("level", "level over that of turn 1", "closeness over that of turn 1")
    for axis, label in zip(axes, labels, strict=True):
        axis.set(xlabel="turn", ylabel=label)
        axis.set_xticks(range(1, len(ticks) + 1), ticks)
    axes[0].set_ylim(0, 1.05)
    for axis in axes[1:]:
        axis.axhline(1.0, color="#888888", linewidth=1, zorder=0)
    _finish(figure, axes[0])
    return _save(figure, stem)


def draw_scores(stem: Path, levels: Levels, scripts: Sequence[Script]) -> list[Path]:
    """The distribution of every reply's level, a panel a context, a step curve an arm."""
    contexts = list(dict.fromkeys(script.context for script in scripts))
    figure, axes = _figure(2.6 * len(contexts) + 0.6, 3.4, len(contexts), sharey=True)
    edges = np.linspace(0, 1, 21)
    for axis, context in zip(axes, contexts, strict=True):
        own = np.asarray([script.context == context for script in scripts])
        for index, (name, values) in enumerate(levels.arms.items()):
            some = values[own]
            some = some[~np.isnan(some)]
            share = np.histogram(some, edges)[0] / max(len(some), 1)
            style = ("-", "--", ":", "-.")[index % 4]
            axis.stairs(share, edges, color=_of(_COLOURS, index), linewidth=1.8, label=name,
                        linestyle=style)  # fmt: skip
        axis.set(title=context, xlabel="level", xlim=(0, 1))
    axes[0].set_ylabel("share of replies")
    _finish(figure, axes[0])
    return _save(figure, stem)


def draw_confusion(stem: Path, counts: Mapping[str, Mapping[str, int]]) -> list[Path]:
    """Which expert the conversations of each context went to: counts, shaded by their share."""
    contexts = list(counts)
    others = [name for own in counts.values() for name in own if name not in contexts]
    experts = [*contexts, *dict.fromkeys(others)]
    table = np.asarray([[counts[row].get(name, 0) for name in experts] for row in contexts])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure, axis = _figure(1.1 * len(experts) + 1.8, 0.8 * len(contexts) + 1.6)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(table.shape):
        dark = share[row, column] > 0.55
        axis.text(column, row, str(table[row, column]), ha="center", va="center",
                  color="white" if dark else "#222222")  # fmt: skip
    axis.set_xticks(range(len(experts)), experts)
    axis.set_yticks(range(len(contexts)), contexts)
    axis.set(xlabel="expert that answered", ylabel="context")
    return _save(figure, stem)


def _with_errors(rows: Sequence[Mapping[str, Any] | None]) -> tuple[np.ndarray, np.ndarray]:
    """Values, and how far their intervals reach below and above; NaN where there is none."""
    found = np.asarray(
        [
            [np.nan if one is None or one[end] is None else one[end]
             for end in ("value", "low", "high")]
            for one in rows
        ]
    )  # fmt: skip
    return found[:, 0], np.abs(found[:, 1:] - found[:, :1]).T


def _figure(width: float, height: float, panels: int = 0, **given: Any) -> tuple["Figure", Any]:
    from matplotlib.figure import Figure  # a second to load; no window system is asked for

    figure = Figure(figsize=(width, height), layout="constrained")
    if not panels:
        return figure, figure.subplots()
    return figure, list(figure.subplots(1, panels, squeeze=False, **given)[0])


def _finish(figure: "Figure", axis: "Axes") -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6),
                  frameon=False)  # fmt: skip
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)


def _save(figure: "Figure", stem: Path) -> list[Path]:
    from matplotlib import rc_context

    paths = [stem.with_name(f"{stem.name}{end}") for end in (".png", ".svg")]
    # Without a date, and with names that are not random, the same figure has the same bytes.
    with output_files(*paths) as (png, svg), rc_context({"svg.hashsalt": "hen_jax"}):
        figure.savefig(png, dpi=160)
        figure.savefig(svg, metadata={"Date": None})
    return paths


def _of(choices: Sequence[str], index: int) -> str:
    return choices[index % len(choices)]

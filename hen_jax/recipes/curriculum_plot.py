"""The curriculum over time, from a run's metrics: who learnt when, and how hard each task was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.files import staged_file
from hen_jax.training.metrics import read_metrics

PLOT_FILE = "curriculum.png"

_COLOURS = ("#1f6f8b", "#e08e45", "#6a994e", "#b03a48", "#7b5ea7", "#9aa5b1")


def draw_curriculum(workdir: Path, tasks: Sequence[str]) -> None:
    """Draws the metrics of the run in `workdir` to its `curriculum.png`."""
    lines = [line for line in read_metrics(workdir) if line["kind"] == "train"]
    if lines:  # a log that was lost is told of where it is opened
        plot_curriculum(lines, tasks, workdir / PLOT_FILE)


def plot_curriculum(lines: Sequence[dict[str, Any]], tasks: Sequence[str], path: Path) -> None:
    """Draws what the lines of a run hold: place of each task, pacing, and a panel of curves.

    `place/TASK` (a filled square where the task learns), `active`, and whichever of
    `difficulty/TASK`, `score/TASK`, `weight/TASK` were logged.
    """
    from matplotlib.figure import Figure  # a second to load; no window system is asked for

    curves = [
        name for name in ("difficulty", "score", "weight") if f"{name}/{tasks[0]}" in lines[0]
    ]
    places = [True] if f"place/{tasks[0]}" in lines[0] else []
    panels = len(places) + len(curves)
    if not panels:
        return
    figure = Figure(figsize=(8, 2.6 * panels), layout="constrained")
    axes = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    steps = [line["step"] for line in lines]
    if places:
        _draw_places(axes[0], lines, steps, tasks)
    for axis, name in zip(axes[len(places) :], curves, strict=True):
        for task, colour in zip(tasks, _colours(tasks), strict=True):
            axis.plot(steps, [line[f"{name}/{task}"] for line in lines], color=colour, label=task)
        axis.set_ylabel(_MEANING[name])
    axes[0].legend(ncols=len(tasks), frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes[-1].set_xlabel("step")
    with staged_file(path) as staged:
        figure.savefig(staged, dpi=150, format="png")


_MEANING = {
    "difficulty": "query loss after\nadaptation (nats)",
    "score": "order score",
    "weight": "mean weight",
}


def _draw_places(
    axis: Any, lines: Sequence[dict[str, Any]], steps: list[int], tasks: Sequence[str]
) -> None:
    for task, colour in zip(tasks, _colours(tasks), strict=True):
        places = [line[f"place/{task}"] for line in lines]
        learns = [line[f"place/{task}"] < line.get("active", len(tasks)) for line in lines]
        axis.plot(steps, places, color=colour, lw=0.8, alpha=0.5)
        for here, size, face in ((True, 22, colour), (False, 14, "none")):
            chosen = [i for i, learning in enumerate(learns) if learning == here]
            axis.scatter(
                [steps[i] for i in chosen],
                [places[i] for i in chosen],
                s=size,
                marker="s",
                facecolors=face,
                edgecolors=colour,
                linewidths=0.8,
                label=task if here else None,
            )
    axis.set_yticks(range(len(tasks)), [str(place + 1) for place in range(len(tasks))])
    axis.set_ylabel("place in the order\n(filled: learns)")
    axis.invert_yaxis()


def _colours(tasks: Sequence[str]) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(len(tasks))]

"""`router.png`: which expert held-out conversations were given, by the one they belong to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.files import staged_file

_FILE = "router.png"


def draw_routing(workdir: Path, report: Mapping[str, Any]) -> None:
    """Shares of each expert's conversations as a table of cells, the base in the last column."""
    from matplotlib.figure import Figure  # a second to load; no window system is asked for

    names, counts = report["experts"], np.asarray(report["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    columns = [*names, "base"]
    figure = Figure(
        figsize=(2.2 + 0.9 * len(columns), 1.6 + 0.6 * len(names)), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, of_row in enumerate(counts):
        for column, number in enumerate(of_row):
            dark = shares[row, column] > 0.5
            axes.text(column, row, str(number), ha="center", va="center",
                      color="white" if dark else "#222222")  # fmt: skip
    axes.set_xticks(range(len(columns)), columns, rotation=20)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="routed to", ylabel="belongs to")
    with staged_file(workdir / _FILE) as staged:
        figure.savefig(staged, dpi=150, format="png")

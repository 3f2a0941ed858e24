"""`regression.png`: predicted against true ratings, and the error beside that of the controls."""

from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.files import staged_file

_FILE = "regression.png"


def draw_regression(
    workdir: Path, report: dict[str, Any], truth: np.ndarray, predicted: np.ndarray
) -> None:
    """Draws held-out conversations, `truth [n]` and `predicted [n]` in [0, 1], and the errors."""
    from matplotlib.figure import Figure  # a second to load; no window system is asked for

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rated, errors = figure.subplots(1, 2)
    rated.plot([0, 1], [0, 1], color="#9aa5b1", linewidth=1)
    rated.scatter(truth, predicted, 24, color="#1f6f8b", alpha=0.8)
    rated.set(xlabel="rating", ylabel="predicted", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    mse = report["model"]["mse"]
    names = [*report["controls"], "model"]
    values = [*(one["mse"] for one in report["controls"].values()), mse["value"]]
    colours = ["#9aa5b1"] * len(report["controls"]) + ["#1f6f8b"]
    errors.barh([name.replace("_", " ") for name in names], values, color=colours)
    if mse["low"] is not None:
        errors.plot([mse["low"], mse["high"]], [len(names) - 1] * 2, color="#222222")
    errors.set(xlabel="mean squared error of held-out ratings")
    with staged_file(workdir / _FILE) as staged:
        figure.savefig(staged, dpi=150, format="png")

"""`reward.png`: how sure a reward model is and should be, and the scores of both sides."""

from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.files import staged_file


def draw_reward(path: Path, report: dict[str, Any], scores: np.ndarray) -> None:
    """Draws the reliability of held-out pairs and the two distributions of `scores [n, 2]`."""
    from matplotlib.figure import Figure  # a second to load; no window system is asked for

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    sure, sides = figure.subplots(1, 2)
    sure.plot([0, 1], [0, 1], color="#9aa5b1", linewidth=1)
    if report["calibration"] is not None:
        bins = report["calibration"]["bins"]
        sizes = [10 + 2 * one["pairs"] for one in bins]
        predicted, observed = ([one[key] for one in bins] for key in ("predicted", "observed"))
        sure.scatter(predicted, observed, sizes, color="#1f6f8b")
    sure.set(xlabel="predicted share", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
    edges = np.histogram_bin_edges(scores, 20)
    for side, colour, name in zip(
        scores.T, ("#6a994e", "#b03a48"), ("chosen", "rejected"), strict=True
    ):
        sides.hist(side, edges, color=colour, alpha=0.6, label=name)
    sides.set(xlabel="score", ylabel="held-out replies")
    sides.legend(frameon=False)
    with staged_file(path) as staged:
        figure.savefig(staged, dpi=150, format="png")

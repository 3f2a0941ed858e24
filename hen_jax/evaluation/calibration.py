"""The calibration of a reward model: fitted once on held-out groups, frozen, kept with the model.

Live statistics would make a reward move while a policy is trained on it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hen_jax.core.shapes import checked_shape, is_figure
from hen_jax.evaluation.preferences import level, probabilities

_LEAST_SPREAD = 1e-6


class TaskScale(NamedTuple):
    """The scores of a task's held-out replies, chosen and rejected."""

    mean: float
    spread: float  # standard deviation


class Calibration(NamedTuple):
    """What turns scores into figures that can be compared between models and tasks."""

    temperature: float | None  # beta; None where held-out scores had none
    centre: float  # the score half way between the chosen and the rejected
    tasks: Mapping[str, TaskScale]

    def reward(self, score: float, task: str) -> float | None:
        """The score in spreads of its task's from their mean (HEN's calibrated reward, in our
        reconstruction); None for a task that was not held out.
        """
        scale = self.tasks.get(task)
        return None if scale is None else (score - scale.mean) / (scale.spread + _LEAST_SPREAD)

    def level(self, score: float) -> float | None:
        """`preferences.level` at the frozen temperature and centre."""
        if self.temperature is None:
            return None
        return float(level(np.asarray(score), self.temperature, self.centre))

    def share(self, first: float, second: float) -> float | None:
        """The share of people who would prefer the first; of the pair exchanged, 1 less that."""
        if self.temperature is None:
            return None
        return float(probabilities(np.asarray(first - second), self.temperature))


def calibration_of(report: Mapping[str, Any], where: Path | str = "reward") -> Calibration:
    """That of a run's `reward.json`, or of the `reward` of an export's record, read `where`.

    Raises:
      InputError: it is of another shape; names `where`.
    """
    checked_shape(report, _REPORT, where, "give the reward.json of a run, or its export, unchanged")
    tasks = {task: TaskScale(one["mean"], one["spread"]) for task, one in report["tasks"].items()}
    return Calibration(report["temperature"], report.get("centre", 0.0), tasks)


_REPORT = {
    "temperature": (None, is_figure),
    "centre?": is_figure,
    "tasks": {...: {"mean": is_figure, "spread": is_figure}},
}

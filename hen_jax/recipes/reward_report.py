"""The evaluator of a reward model: what its scores say of held-out pairs, in `reward.json`."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, write_json
from hen_jax.core.mesh import replicated
from hen_jax.data.word_ranker import cross_validated_margins
from hen_jax.evaluation.preference_report import report_preferences
from hen_jax.evaluation.preferences import pair_accuracy
from hen_jax.recipes.reward_held import held_pairs, pair_scores, task_scores
from hen_jax.recipes.reward_plot import draw_reward
from hen_jax.runs.compared import ComparedParts
from hen_jax.runs.earlier import previous_run
from hen_jax.runs.export.trained import REPORTS
from hen_jax.runs.record import read_back
from hen_jax.runs.stage import Job
from hen_jax.steps.reward import row_of_scores
from hen_jax.steps.state import State
from hen_jax.training.loop import Evaluator
from hen_jax.training.placement import to_devices
from hen_jax.training.processes import is_primary

_REPORT = REPORTS["reward"]
"""In the work directory of a run; an export carries it on."""


def preferences(job: Job) -> Evaluator:
    """Accuracy by kind beside its controls, temperature and calibration, on the held-out pairs.

    The last report is `reward.json`, drawn in `reward.png`. Its `tasks` hold the mean and spread of
    scores by which a reward is to be calibrated, and which stay as they are from then on.
    """
    settings, bounds, put = job.settings, job.feed.bounds, to_devices(job.mesh)

    def score(params, frozen, batch):
        graphdef, replies = job.model.graphdef, bounds.replies
        return row_of_scores(graphdef, replies, params, frozen, batch, bounds.reach)

    scored = jax.jit(score, out_shardings=replicated(job.mesh))

    def scores(state: State) -> np.ndarray:
        rows = [scored(state.params, job.frozen, put(batch)) for batch in job.feed.held_out()]
        return np.concatenate([np.asarray(row) for row in rows])

    control = control_accuracies(settings)
    return reward_reporting(job, settings.parts(job.tokenizer), scores, _REPORT, control)


SAME = ("sources", "level", "crossings", "plain")
"""The fields in which a run and its control must agree, so that they hold out the same pairs."""


def control_accuracies(settings: Any) -> dict[str, float]:
    """By kind, what the run in `config.control` reaches that never sees what was asked.

    Raises:
      InputError: no such run, one that reads prompts, one of other data, or one without a report.
    """
    if settings.control is None:
        return {}
    folder = Path(settings.control)
    theirs = previous_run(folder).record["config"]
    ours = read_back(dataclasses.asdict(settings))
    if theirs.get("reads") != "replies":
        raise InputError(f"config.control: {folder} holds no run with config.reads='replies'")
    for name in SAME:
        if theirs[name] != ours[name]:
            raise InputError(f"config.control: the run in {folder} has another config.{name}")
    if not (folder / _REPORT).exists():
        raise InputError(f"config.control: {folder} has no {_REPORT}; finish that run first")
    found = read_json(folder / _REPORT)["accuracy"]
    return {kind: one["model"]["value"] for kind, one in found.items()}


def reward_reporting(
    job: Job,
    parts: ComparedParts,
    scored: Callable[[State], np.ndarray],
    name: str,
    control: Mapping[str, float] = {},
) -> Evaluator:
    """What `scored(state) [rows, K]` says of the held-out pairs: in `name`, a JSON file, and in a
    drawing beside it. `preferences` of a reward model, and of a policy's implicit reward. `control`
    are accuracies by kind of a model that reads replies alone."""
    held, drawing = held_pairs(parts), Path(name).with_suffix(".png")
    mixture = float(pair_accuracy(cross_validated_margins(parts.train.pairs())).mean())

    def look(state: State) -> dict[str, float]:
        scores = scored(state)
        sides = pair_scores(parts.valid, scores)
        found = report_preferences(sides, held, task_scores(parts.valid, scores))
        found |= {"step": int(state.step), "bag_of_words_on_training_mixture": mixture}
        for kind in found["accuracy"].keys() & control.keys():
            found["accuracy"][kind]["reply_only"] = control[kind]
        if is_primary():
            write_json(job.workdir / name, found)
            if found["step"] == job.feed.steps:
                draw_reward(job.workdir / drawing, found, sides)
        calibration = found["calibration"] or {"brier": np.nan, "ece": np.nan}
        return {
            **{
                f"accuracy/{kind}": one["model"]["value"] for kind, one in found["accuracy"].items()
            },
            **{name: calibration[name] for name in ("brier", "ece")},
        }

    return look

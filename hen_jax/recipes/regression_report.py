"""The evaluator of a rating model: what its ratings of held-out conversations are worth."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hen_jax.core.files import staged_file, write_json
from hen_jax.core.mesh import replicated
from hen_jax.data.rated import RatedDocument
from hen_jax.data.rated_batches import RatedRow, pack_rated
from hen_jax.evaluation.regression import regression_report, regression_scores
from hen_jax.recipes.regression_held import held_ratings
from hen_jax.recipes.regression_plot import draw_regression
from hen_jax.runs.export.trained import REPORTS
from hen_jax.runs.rated import LABELS, rated_parts
from hen_jax.runs.stage import Job
from hen_jax.steps.regression import rating_logits
from hen_jax.steps.state import State
from hen_jax.training.loop import Evaluator
from hen_jax.training.placement import to_devices
from hen_jax.training.processes import is_primary

_REPORT = REPORTS["regression"]
"""In the work directory of a run; an export carries it on."""

RATED = "held_out.jsonl"
"""Beside it: what was predicted of each held-out conversation."""


def ratings(job: Job) -> Evaluator:
    """Errors, correlations and classes of held-out ratings, beside predictors that understand
    nothing.

    The last report is `regression.json`, drawn in `regression.png`; what was predicted of each
    conversation is in `held_out.jsonl`.
    """
    settings, bounds, put = job.settings, job.feed.bounds, to_devices(job.mesh)
    parts = rated_parts(settings.asked(), settings.data, job.tokenizer)
    held, labels = held_ratings(parts), LABELS[settings.predicts]
    rows = pack_rated(parts.valid.documents, settings.data)

    def rate(params, frozen, batch):
        return jax.nn.sigmoid(
            rating_logits(job.model.graphdef, params, frozen, batch, bounds.reach)
        )

    rated = jax.jit(rate, out_shardings=replicated(job.mesh))

    def look(state: State) -> dict[str, float]:
        found = [rated(state.params, job.frozen, put(batch)) for batch in job.feed.held_out()]
        by_id = by_conversation(rows, np.concatenate([np.asarray(one) for one in found]))
        outputs = np.stack([by_id[one.id] for one in parts.valid.documents])
        overall = outputs.mean(axis=1)
        report = regression_report(overall, held)
        report |= {
            "step": int(state.step),
            "reads": settings.reads,
            "dimensions": dimension_scores(parts.valid.rated, outputs, labels),
        }
        if is_primary():
            write_json(job.workdir / _REPORT, report)
            if report["step"] == job.feed.steps:
                _write_rated(job.workdir / RATED, parts.valid.rated, overall)
                draw_regression(job.workdir, report, held.truth, overall)
        return {
            name: one["value"] if one["value"] is not None else np.nan
            for name, one in report["model"].items()
        }

    return look


def by_conversation(rows: Sequence[RatedRow], predicted: np.ndarray) -> dict[str, np.ndarray]:
    """`[O]` of each conversation: the mean over its marks, turn first, from `[rows, K, O]`."""
    found: dict[str, np.ndarray] = {}
    for row, values in zip(rows, predicted, strict=False):  # rows of padding come last
        ends = np.cumsum([len(one.marks) for one in row])
        for one, own in zip(row, np.split(values[: ends[-1]], ends[:-1]), strict=True):
            found[one.id] = own.mean(axis=0)
    return found


def dimension_scores(
    rated: Sequence[RatedDocument], outputs: np.ndarray, labels: tuple[str, ...]
) -> dict[str, Any]:
    """Error and rank correlation of each dimension over the conversations rated by it."""
    found = {}
    for at, name in enumerate(labels if outputs.shape[1] > 1 else ()):
        truth = np.asarray([one.level.outputs((name,))[0] for one in rated])
        known = ~np.isnan(truth)
        if known.any():
            scores = regression_scores(truth[known], outputs[known, at])
            spearman = None if np.isnan(scores.spearman) else round(scores.spearman, 4)
            found[name] = {
                "mse": round(scores.mse, 4),
                "spearman": spearman,
                "conversations": int(known.sum()),
            }
    return found


def _write_rated(path: Path, rated: Sequence[RatedDocument], predicted: np.ndarray) -> None:
    with staged_file(path) as staged, staged.open("w", encoding="utf-8") as file:
        for one, value in zip(rated, predicted.tolist(), strict=True):
            row = {"id": one.document.id, "rating": one.level.overall, "predicted": value}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

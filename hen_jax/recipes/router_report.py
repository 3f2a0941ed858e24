"""The evaluator of a router: `router.json`, its picture, and the folder that is used.

Beside the router stand what knows words alone and what knows nothing. What belongs to no expert is
measured twice: by leaving one expert after the other out of training, whose conversations are then
unknown, and by `config.unknown` where it names some.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from hen_jax.core.files import write_json
from hen_jax.evaluation.routing import (
    Calibrated,
    auroc,
    calibrate,
    left_out_auroc,
    plain_accuracy,
    routing_report,
)
from hen_jax.evaluation.softmax_ridge import word_logits
from hen_jax.recipes.router_plot import draw_routing
from hen_jax.recipes.router_vectors import conversations_of, raw_vectors, scale_of
from hen_jax.runs.routed import RoutedPart
from hen_jax.runs.routing import FOLDER, Router, write_router
from hen_jax.runs.stage import Job
from hen_jax.steps.router import HEAD
from hen_jax.steps.state import State
from hen_jax.training.loop import Evaluator

_REPORT = "router.json"
"""In the work directory of a run; the record of the router's folder has it, too."""


class _Head(NamedTuple):
    """Of raw vectors."""

    kernel: np.ndarray  # [D, E]
    bias: np.ndarray  # [E]

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """`[N, E]`."""
        return vectors @ self.kernel + self.bias


def routing(job: Job) -> Evaluator:
    """Accuracy on the held-out fold; after the last update all that `router.json` holds."""
    vectors, parts = raw_vectors(job), conversations_of(job).parts

    def look(state: State) -> dict[str, float]:
        trained = {name: np.asarray(leaf) for name, leaf in state.params[HEAD].items()}
        head = _Head(*scale_of(vectors("train")).unscaled(trained["kernel"], trained["bias"]))
        test = parts["test"]
        if int(state.step) == job.feed.steps:
            _finish(job, head)
        right = head.logits(vectors("test")).argmax(axis=1) == test.labels
        return {"accuracy": float(right[test.whole].mean())}

    return look


def _finish(job: Job, head: _Head) -> None:
    """Writes the report, the picture and the router's folder."""
    settings, vectors, parts = job.settings, raw_vectors(job), conversations_of(job).parts
    names, test = [route.name for route in settings.routes], parts["test"]
    held = parts["calibration"].labels
    calibrated = calibrate(head.logits(vectors("calibration")), held, settings.keep)
    layer = settings.layer(job.model.config)
    logits, whole = head.logits(vectors("test")), test.whole
    groups = [group for group, mine in zip(test.groups, whole, strict=True) if mine]
    report = {
        "experts": names,
        "reads": {"turns": settings.reading.turns, "layer": layer, "pooling": "mean"},
        **routing_report(logits[whole], test.labels[whole], groups, names, calibrated),
        "by_messages": {
            int(count): plain_accuracy(logits[at], test.labels[at])
            for count in np.unique(test.messages)
            for at in [test.messages == count]
        },
        "temperature": round(calibrated.temperature, 4),
        "threshold": round(calibrated.threshold, 4),
        "controls": _controls(parts["train"], test, len(names)),
        "unknown": _unknown(job, head, calibrated),
    }
    write_json(job.workdir / _REPORT, report)
    draw_routing(job.workdir, report)
    base = job.record["base"]
    read = {"folder": base["folder"], "weights_sha256": base["weights_sha256"], "layer": layer}
    router = Router(tuple(names), *head, calibrated, settings.reading, read)
    write_router(job.workdir / FOLDER, router, report)


def _controls(train: RoutedPart, test: RoutedPart, experts: int) -> dict[str, Any]:
    """What knows words, and what says the same of all; of whole readings, as the router's."""
    most = np.bincount(train.labels, minlength=experts).argmax()
    said = {
        "bag_of_words": word_logits(train.texts, train.labels, test.texts, experts),
        "majority": np.tile(np.eye(experts)[most], (len(test.labels), 1)),
    }
    at = test.whole
    return {name: plain_accuracy(logits[at], test.labels[at]) for name, logits in said.items()}


def _unknown(job: Job, head: _Head, calibrated: Calibrated) -> dict[str, Any]:
    """How well the confidence tells what belongs to an expert from what does not."""
    settings, vectors, parts = job.settings, raw_vectors(job), conversations_of(job).parts
    train, test, scale = parts["train"], parts["test"], scale_of(vectors("train"))
    left_out = left_out_auroc(
        (scale.standard(vectors("train")), train.labels),
        (scale.standard(vectors("test"))[test.whole], test.labels[test.whole]),
        [route.name for route in settings.routes],
        settings.ridge,
    )
    found: dict[str, Any] = {"auroc_left_out": left_out}
    if len(parts["unknown"].documents):
        known, other = (
            head.logits(vectors(part))[parts[part].whole] for part in ("test", "unknown")
        )
        confidence = [softmax(one / calibrated.temperature, axis=1).max(axis=1)
                      for one in (known, other)]  # fmt: skip
        found["auroc"] = round(auroc(*confidence), 4)
        found["refused"] = round(float((confidence[1] < calibrated.threshold).mean()), 4)
        found["conversations"] = len(other)
    return found

"""What a run measured on data it did not train on: rows before and after, and accuracies."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.files import read_json
from hen_jax.core.shapes import checked_shape, is_count, is_figure
from hen_jax.training.metrics import METRICS_FILE, read_metrics

REWARD, REGRESSION = "reward.json", "regression.json"
"""What reward models and rating models leave in their work directories."""

_LESS = ("loss", "brier", "ece", "error", "perplexity", "repeated", "truncated")
_MORE = ("accuracy", "reward", "correlation")
"""Parts of the names of measures of which less, or more, is better; of others neither is."""

_ACCURACY = {"value": is_figure, "low": is_figure, "high": is_figure, "groups": is_count}
_REWARD = {"accuracy": {...: {"model": _ACCURACY, "pairs": is_count, ...: is_figure}}}

ResultRow = dict[str, Any]


def results_of(run: Path, name: str) -> list[ResultRow]:
    """Every figure that the run in that folder measured on held-out data.

    The fields are those of `hen evaluate`, and `before`, the value before the first update:
    `{"arm": name, "suite": "held_out", "measure": "loss", "before": 4.1, "value": 3.6, ...}`.
    """
    lines = read_metrics(run) if (run / METRICS_FILE).exists() else []
    rows = [*_before_and_after(lines)]
    if (run / REWARD).exists():
        rows = [row for row in rows if not row["measure"].startswith("accuracy/")]
        rows += _accuracies(
            checked_shape(read_json(run / REWARD), _REWARD, run / REWARD, "run its report again")
        )
    return [{"arm": name, **row, "better": better(row["measure"])} for row in rows]


def better(measure: str) -> str:
    """ "higher" or "lower", whichever is the better direction of a measure; "": neither is."""
    if any(part in measure for part in _MORE):
        return "higher"
    return "lower" if any(part in measure for part in _LESS) else ""


def _before_and_after(lines: Sequence[Mapping[str, Any]]) -> Iterator[ResultRow]:
    kinds = dict.fromkeys(
        line["kind"] for line in lines if line["kind"] not in ("train", "skipped")
    )
    for kind in kinds:
        own = [line for line in lines if line["kind"] == kind]
        first, last = own[0], own[-1]
        for measure in sorted(last.keys() - {"step", "kind"}, key=lambda one: (one != "loss", one)):
            yield {
                "suite": "held_out" if kind == "eval" else kind,
                "measure": measure,
                "group": "all",
                "before": first.get(measure) if first["step"] == 0 else None,
                "value": last[measure],
                "step": last["step"],
            }


def _accuracies(report: Mapping[str, Any]) -> Iterator[ResultRow]:
    for kind, found in report["accuracy"].items():
        model = found["model"]
        controls = {key: one for key, one in found.items() if key not in ("model", "pairs")}
        yield {
            "suite": "preferences",
            "measure": "accuracy",
            "group": kind,
            "value": model["value"],
            "low": model["low"],
            "high": model["high"],
            "n": found["pairs"],
            "clusters": model["groups"],
            "controls": controls,
        }

"""The tables of `emcl_effect.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hen_jax.core.files import staged_file, write_json

OURS = ("EMCL-A", "EMCL-B", "EMCL-C", "EMCL-A plain")


def write_report(out: Path, setting: dict[str, Any], runs: dict[str, list[dict]]) -> str:
    """Writes `effect.json` and `effect.md`; returns the Markdown."""
    methods = {
        name: {
            "learning_rate": found[0]["learning_rate"],
            "evaluations": found[0]["evaluations"],
            "steps": found[0]["asked"]["steps"],
            "loss": [one["loss"] for one in found],
            "before": [one["before"] for one in found],
        }
        for name, found in runs.items()
    }
    differences = {
        ours: {
            other: difference(methods[ours]["loss"], methods[other]["loss"])
            for other in methods
            if other not in OURS
        }
        for ours in OURS
        if ours in methods
    }
    write_json(
        out / "effect.json",
        {"setting": setting, "methods": methods, "differences": differences},
    )
    text = _markdown(setting, methods, differences)
    with staged_file(out / "effect.md") as staged:
        staged.write_text(text, encoding="utf-8")
    return text


def difference(ours: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Mean of `ours - other`, paired by seed, and its 95 % interval by Student's t."""
    paired = np.asarray(ours) - np.asarray(other)
    reach = 0.0
    if len(paired) > 1:
        quantile = float(stats.t.ppf(0.975, len(paired) - 1))
        reach = quantile * float(paired.std(ddof=1)) / len(paired) ** 0.5
    mean = float(paired.mean())
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def _markdown(setting: dict, methods: dict, differences: dict) -> str:
    lines = [f"{name}: {value}" for name, value in setting.items()]
    lines += [
        "",
        "| method | learning rate | steps | evaluations | loss after adaptation | without |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in methods.items():
        after, before = np.asarray(found["loss"]), np.asarray(found["before"])
        spread = after.std(ddof=1) if len(after) > 1 else 0.0
        lines.append(
            f"| {name} | {found['learning_rate']:g} | {found['steps']} | "
            f"{found['evaluations']:.0f} | {after.mean():.4f} ± {spread:.4f} | "
            f"{before.mean():.4f} |"
        )
    for ours, found in differences.items():
        lines += ["", f"| {ours} minus | difference | 95 % interval |", "|---|---|---|"]
        lines += [
            f"| {other} | {d['mean']:+.4f} | {d['low']:+.4f} to {d['high']:+.4f} |"
            for other, d in found.items()
        ]
    return "\n".join(lines) + "\n"

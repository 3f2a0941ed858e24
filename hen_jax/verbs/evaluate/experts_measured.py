"""Experts measured: arms answer replayed conversations, measures look at them, a report is written.

The folder has `replies.jsonl` and `levels.jsonl`, which a second start goes on from, and at the end
`results.json`, `results.md` and the figures.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.files import write_json
from hen_jax.core.journal import open_journal
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.evaluation.expert_levels import Wanted
from hen_jax.evaluation.expert_report import (
    BootstrapDraws,
    Desired,
    Levels,
    figures_table,
    measure_report,
)
from hen_jax.evaluation.replayed_turns import Script
from hen_jax.verbs.evaluate.experts_arms import Answers, answers_of, scripts_of
from hen_jax.verbs.evaluate.experts_levels import levels_of
from hen_jax.verbs.evaluate.experts_plot import draw_all
from hen_jax.verbs.evaluate.experts_settings import Measurement

RESULTS, TABLES = "results.json", "results.md"
"""In the folder of a measurement."""


def measure_experts(asked: Measurement, out: Path) -> dict[str, Any]:
    """Asks what is missing, measures it, and writes the report; returns `results.json`.

    Raises:
      InputError: bad input, or a folder with files of somebody else.
    """
    require_no_link(out)
    out.mkdir(parents=True, exist_ok=True)
    require_ours(out / RESULTS, out / TABLES)
    scripts = scripts_of(asked)
    turns = max(len(script.users) for script in scripts)
    answers: dict[str, Answers] = {}
    with open_journal(out / "replies.jsonl", "replies of experts") as journal:
        for arm in asked.arms:
            answers[arm.name] = answers_of(arm, asked, scripts, journal)
            print(f"arm {arm.name}: {len(answers[arm.name].said)} replies", flush=True)
    levels: dict[str, Levels] = {}
    with open_journal(out / "levels.jsonl", "levels of experts") as journal:
        for measure in asked.measures:
            levels[measure.name] = levels_of(
                measure, scripts, answers, turns, journal, asked.crossed
            )
            print(f"measure {measure.name}: done", flush=True)
    found = results(asked, scripts, answers, levels)
    with output_files(out / RESULTS, out / TABLES) as (as_json, as_text):
        write_json(as_json, found)
        as_text.write_text("\n".join(lines_of(found)) + "\n", encoding="utf-8")
    draw_all(out, found, levels, scripts)
    print("\n".join(lines_of(found)))
    return found


def results(
    asked: Measurement,
    scripts: Sequence[Script],
    answers: Mapping[str, Answers],
    levels: Mapping[str, Levels],
) -> dict[str, Any]:
    """All figures, with what they were made from."""
    wanted = Wanted(
        [script.group for script in scripts],
        [script.context for script in scripts],
        np.asarray([script.desired for script in scripts]),
    )
    drawn = BootstrapDraws(asked.draws, asked.seed)
    targets: dict[str, Desired] = {measure.name: measure.desired for measure in asked.measures}
    lengths = [len(script.users) for script in scripts]
    return {
        "settings": dataclasses.asdict(asked),
        "conversations": dict(Counter(wanted.contexts)),
        "turns": [sum(length > turn for length in lengths) for turn in range(max(lengths))],
        "arms": {
            name: {
                "by": one.by,
                "replies": len(one.said),
                "empty": sum(not text.strip() for text in one.said.values()),
                "confusion": confusion(scripts, one),
            }
            for name, one in answers.items()
        },
        "measures": {
            name: measure_report(one, wanted, asked.baseline, drawn, targets[name])
            for name, one in levels.items()
        },
    }


_NOBODY = "base"
"""The expert of conversations that the base answers, in a table."""


def confusion(scripts: Sequence[Script], answers: Answers) -> dict[str, dict[str, int]]:
    """How many conversations of each context went to each expert."""
    found: dict[str, Counter[str]] = {}
    for script in scripts:
        expert = answers.routes[script.id] or _NOBODY
        found.setdefault(script.context, Counter())[expert] += 1
    return {context: dict(own) for context, own in found.items()}


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """The report as Markdown."""
    number = ", ".join(f"{context} {n}" for context, n in found["conversations"].items())
    lines = [f"Conversations: {number}. Conversations by turn: {found['turns']}."]
    for name, report in found["measures"].items():
        lines += ["", f"## {name} ({report['kind']})", "", report["claim"]]
        said = [f"{kind} {_accuracy(one)}" for kind, one in report["crossed"].items()]
        lines += [f"Crossed accuracies: {'; '.join(said)}."] if said else []
        if any(report["missing"].values()):
            lines.append(f"Replies without a level: {report['missing']}.")
        lines += ["", *figures_table(report, list(report["persistence"]))]
        lines += ["", *_context_table(report), ""]
        for arm, own in report["by_length"].items():
            said = [f"{turns} {_level(one, '{:.0f} %')}" for turns, one in own.items()]
            lines.append(f"Gap reduction of {arm} by length of conversation: {', '.join(said)}.")
    return lines


def _context_table(report: Mapping[str, Any]) -> list[str]:
    """Levels of each arm by context, and the gap reduction."""
    contexts = list(report["desired"])
    rows = [["level", *contexts], ["---"] * (len(contexts) + 1)]
    for name, own in {"desired": report["desired"], **report["levels"]}.items():
        rows.append([name, *(_level(own.get(context)) for context in contexts)])
    for name, own in report["gaps"].items():
        cells = [_level(own["contexts"].get(context), "{:.0f} %") for context in contexts]
        rows.append([f"gap reduction, {name}", *cells])
    for name, own in report["closer"].items():
        rows.append([f"closer, {name}", *(_signed(own.get(context)) for context in contexts)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _accuracy(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "unknown"
    if one["low"] is None:
        return f"{one['value']:.2f} (no interval)"
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _level(one: Mapping[str, Any] | None, form: str = "{:.2f}") -> str:
    return "" if one is None or one["value"] is None else form.format(one["value"])


def _signed(one: Mapping[str, Any] | None) -> str:
    """A difference; starred where its interval is on one side of 0."""
    if one is None or one["value"] is None:
        return ""
    sure = one["low"] is not None and (one["low"] > 0 or one["high"] < 0)
    return f"{one['value']:+.2f}{'*' if sure else ''}"

"""`hen data sense7`: desired against perceived empathy in a SENSE-7 workbook."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, write_json
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.core.ranges import Range, require_in
from hen_jax.data.sense7 import read_sense7
from hen_jax.empathy.clusters import CONTEXT_OF_TASK, CONTEXTS
from hen_jax.evaluation.ratings import (
    Group,
    Interval,
    Rating,
    Test,
    by,
    compare_groups,
    compare_levels,
    describe,
    normalised,
    satisfaction,
)


def analyse(file: Path, out: Path, contexts: Path | None = None, seed: int = 0) -> dict[str, Any]:
    """Writes `sense7.json`, `sense7.md` and `sense7.png` to the folder `out`; returns the JSON.

    Args:
      file: a workbook, or JSON lines of the same rows.
      out: a folder; the three files in it are replaced if an earlier call wrote them.
      contexts: a JSON object of topic (`PreTaskChoice`) to context, for a workbook whose topics
        are not called as ours.
      seed: of the bootstrap.

    Raises:
      InputError: a negative seed, a bad row (file:line:field), no rated conversation, a bad
        mapping, or other files of these names.
    """
    require_in("--seed", seed, Range(0))
    require_no_link(out)
    paths = [out / f"sense7.{end}" for end in ("json", "md", "png")]
    require_ours(*paths)  # before the work
    conversations = read_sense7(file, CONTEXT_OF_TASK if contexts is None else _mapping(contexts))
    ratings = normalised(conversations)
    tasks, clusters = by(ratings, lambda one: one.task), by(ratings, lambda one: one.context)
    tests, not_computed = _tests(ratings, tasks, clusters)
    report = {
        "file": str(file),
        "conversations": len(conversations),
        "rated": len(ratings),
        "all": _plain(describe(ratings, seed=seed)),
        "tasks": {name: _plain(describe(group, seed=seed)) for name, group in tasks.items()},
        "contexts": {name: _plain(describe(group, seed=seed)) for name, group in clusters.items()},
        "without_context": sorted({one.task for one in ratings if one.context is None}),
        "tests": [_finite(test._asdict()) for test in tests],
        "not_computed": not_computed,
    }
    with output_files(*paths) as (numbers, text, picture):
        write_json(numbers, report)
        text.write_text(_markdown(report), encoding="utf-8")
        _draw_levels(report["tasks"], picture)
    print(f"wrote {out}/sense7.json, sense7.md, sense7.png ({len(ratings)} rated conversations)")
    return report


def _draw_levels(groups: Mapping[str, Any], path: Path) -> None:
    """A picture of desired and perceived empathy per task, with 95 % intervals."""
    from matplotlib.figure import Figure  # a second to load; no window system is asked for

    figure = Figure(figsize=(8, 0.55 * len(groups) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(groups))
    for measure, shift, colour in (("desired", -0.14, "#222222"), ("perceived", 0.14, "#b03a48")):
        means = [group[measure]["mean"] for group in groups.values()]
        reach = [
            [abs(group[measure][end] - group[measure]["mean"]) if group[measure][end] is not None
             else 0.0 for group in groups.values()]
            for end in ("low", "high")
        ]  # fmt: skip
        heights = [place + shift for place in places]
        axes.errorbar(
            means, heights, xerr=reach, fmt="o", color=colour, capsize=3, label=measure, ms=6
        )
    axes.set_yticks(list(places), [name.replace("_", " ") for name in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("empathy, normalised to [0, 1] (mean, 95 % bootstrap over participants)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    figure.savefig(path, dpi=150, format="png")


def _mapping(path: Path) -> dict[str, str]:
    mapping = read_json(path)
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: not a JSON object of topic to context")
    for topic, context in mapping.items():
        if not isinstance(context, str) or context not in CONTEXTS:
            raise InputError(f"{path}: {topic}: {context!r}; allowed: {', '.join(CONTEXTS)}")
    return mapping


def _tests(
    ratings: Sequence[Rating],
    tasks: Mapping[str, Sequence[Rating]],
    clusters: Mapping[str, Sequence[Rating]],
) -> tuple[list[Test], list[str]]:
    """The tests that the data allow, and why each other one is left out."""
    tests, left_out = [*compare_levels({"all": ratings, **clusters})], []
    for name, groups in (("tasks", tasks), ("contexts", clusters)):
        if len(groups) > 1:
            tests += compare_groups(groups)
        else:
            left_out.append(f"levels by {name}: {len(groups)} of them; two are the least")
    try:
        tests.append(satisfaction(ratings))
    except InputError as error:
        left_out.append(f"perceived with satisfaction: {error}")
    return tests, left_out


def _plain(group: Group) -> dict[str, Any]:
    return {
        name: _finite(value._asdict()) if isinstance(value, Interval) else value
        for name, value in group._asdict().items()
    }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no nan: null says that a number could not be computed."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def _markdown(report: Mapping[str, Any]) -> str:
    lines = [
        "# Desired and perceived empathy",
        "",
        f"`{report['file']}`: {report['conversations']} conversations, {report['rated']} of them "
        "with a desired level and a rated turn. Desired (1-3) and perceived (1-5, turn first) are "
        "normalised to [0, 1]; the gap is desired less perceived. Brackets: 95 % bootstrap over "
        "participants.",
    ]
    for title, groups in (
        ("Contexts", {**report["contexts"], "all": report["all"]}),
        ("Tasks", report["tasks"]),
    ):
        lines += [
            "",
            f"## {title}",
            "",
            "| | n | desired | perceived | gap |",
            "|---|---|---|---|---|",
        ]
        lines += [_group_line(name, group) for name, group in groups.items()]
    if report["without_context"]:
        lines += ["", f"In no context: {', '.join(report['without_context'])}."]
    lines += ["", "## Tests", "", "Holm's correction runs within each family of tests.", ""]
    lines += ["| test | n | statistic | p | p (Holm) | effect |", "|---|---|---|---|---|---|"]
    for test in report["tests"]:
        lines.append(
            f"| {test['name']} | {test['count']} | {_number(test['statistic'])} | "
            f"{_number(test['p'])} | {_number(test['holm_p'])} | "
            f"{_number(test['effect'])} ({test['effect_name']}) |"
        )
    if report["not_computed"]:
        lines += ["", *[f"Not computed: {reason}." for reason in report["not_computed"]]]
    return "\n".join(lines) + "\n"


def _group_line(name: str, group: Mapping[str, Any]) -> str:
    cells = [
        f"{_number(level['mean'])} [{_number(level['low'])}, {_number(level['high'])}]"
        for level in (group["desired"], group["perceived"], group["gap"])
    ]
    return f"| {name} | {group['conversations']} | {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"

"""What `bench.py` makes of its results: RESULTS.md, and the table of the README."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duel
from bench_list import BENCHMARKS, FILLED, Benchmark

from hen_jax.text.markdown import markdown_table

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
Results = Mapping[str, Mapping[str, Any]]
"""Name of a benchmark -> what its file holds."""


def results_in(folder: Path) -> Results:
    """Name -> what is kept of a benchmark, in the order of the tables."""
    paths = {name: folder / f"{name}.json" for name in BENCHMARKS}
    return {
        name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()
    }


def write_tables(folder: Path, readme: Path) -> None:
    """RESULTS.md beside the folder of results, and the table of the README."""
    results = results_in(folder)
    folder.with_name("RESULTS.md").write_text(page(results), encoding="utf-8")
    readme.write_text(with_table(readme.read_text("utf-8"), results), encoding="utf-8")


def with_table(text: str, results: Results) -> str:
    """The README with its table of figures as the results have it."""
    before, _, rest = text.partition(f"{BEGIN}\n")
    _, _, after = rest.partition(END)
    rows = [
        [BENCHMARKS[name].what, BENCHMARKS[name].against, one["ratio"], one["memory"], f"`{name}`"]
        for name, one in results.items()
    ]
    head = ["what", "against", "ratio", "memory", "`--only`"]
    table = "\n".join(markdown_table(head, rows))
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def page(results: Results) -> str:
    """RESULTS.md."""
    lines = [
        "# Figures, side by side",
        "",
        "*Written by `benchmarks/bench.py` from `benchmarks/results/`; change those, not this.*",
        "",
        "Same work and same precision on both sides, in turn, each in a fresh process; a ratio is "
        "of the medians, its spread that of the rounds. Peers run at the best of the settings that "
        "a script tries, which its docstring names. Memory is the peak of the process, ours over "
        "theirs.",
        "",
    ]
    for name, benchmark in BENCHMARKS.items():
        lines += [f"## {name}", "", f"Of {benchmark.what}; against {benchmark.against}.", ""]
        lines += section(results[name]) if name in results else ["Not measured yet.", ""]
        lines += ["```", f"python benchmarks/bench.py --only {name}{needs(benchmark)}", "```", ""]
    return "\n".join(lines)


def section(one: Mapping[str, Any]) -> list[str]:
    machine = one["machine"]
    cells = {
        "ratio": one["ratio"],
        "spread": one["spread"],
        "memory": one["memory"],
        "day": one["day"],
        "machine": machine.get("told") or told(machine),
        "versions": ", ".join(f"{name} {version}" for name, version in one["versions"].items()),
        "code": one["code"][:12],
        "ran as": f"`{one['command']}`",
        "note": one["note"],
    }
    rows = [[key, value] for key, value in cells.items() if value]
    lines = [*markdown_table(["figure", "value"], rows), ""]
    for report in one["reports"]:
        if "rows" in report:
            lines += [*contenders(report), ""]
    return lines


def told(machine: Mapping[str, Any]) -> str:
    cpu = ", ".join(machine["cpu"]) or "CPU"
    return f"{cpu}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB"


STANDARD = ("seconds", "cpu_seconds", "peak_bytes", "speed", "speed_by_cpu_seconds", "peak")
"""What every row of a report has; the rest are columns of a benchmark's own."""


def contenders(report: Mapping[str, Any]) -> Iterator[str]:
    """Every side of a report: seconds, speed beside the peer's best, memory, load before it."""
    own = list(
        dict.fromkeys(k for row in report["rows"].values() for k in row if k not in STANDARD)
    )
    rows = []
    for name, row in report["rows"].items():
        load = max(run["load_before"] for run in report["runs"][name])
        cells = [
            f"{row['seconds']:.3f}",
            duel.Ratio(*row["speed"]),
            f"{row['peak_bytes'] / 1e9:.2f}",
        ]
        rows.append([name, *cells, f"{load:.1f}", *(f"{row[one]:.4g}" for one in own)])
    rows += [[name, "does not fit", *[""] * (3 + len(own))] for name in report["did_not_fit"]]
    against = f"times as fast as {report['against']}"
    return markdown_table(["side", "seconds", against, "peak GB", "load before", *own], rows)


def needs(benchmark: Benchmark) -> str:
    flags = [flag for one, flag in FILLED.items() if f"{{{one}}}" in benchmark.command]
    return "".join(f" {flag} {flag.removeprefix('--').upper()}" for flag in flags)

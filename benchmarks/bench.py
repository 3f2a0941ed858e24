"""Every side-by-side benchmark, its figures kept with their commands; RESULTS.md and the README.

    python benchmarks/bench.py --model models/smollm2-135m --peer-python .venv-interop/bin/python
    python benchmarks/bench.py --model models/smollm2-135m --only sft decode
    python benchmarks/bench.py --tables

Each benchmark of `bench_list.py` runs in a process of its own, three rounds or more, and leaves
`results/NAME.json`: figures, command, day, machine, versions, load, and what every side told in
every round. One whose figures are of this very code, command and machine is not run again unless
`--again` says so, so that an interrupted `make bench` goes on. One that needs what was not given (a
file, another checkout) is named with the flag that it waits for.

Then RESULTS.md is written from those files, and the table of the README from the same; `--tables`
does that alone. `tests/test_bench.py` compares all three, so no figure stands anywhere by hand.
"""

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duel
from bench_list import BENCHMARKS, FILLED, Benchmark, Reports
from bench_pages import write_tables

HERE = Path(__file__).parent
ROOT = HERE.parent


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    failed: list[str] = []
    for name in [] if options.tables else options.only or BENCHMARKS:
        failed += [] if measure(name, BENCHMARKS[name], options) else [name]
        write_tables(options.results, options.readme)
    write_tables(options.results, options.readme)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), help="of the benchmarks")
    parser.add_argument("--again", action="store_true", help="those that are there, too")
    parser.add_argument("--tables", action="store_true", help="write the tables, run nothing")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="a file of each")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="with the table")
    parser.add_argument("--model", help="a Hugging Face folder of SmolLM2-135M")
    parser.add_argument("--peer-python", help="with torch, transformers, PEFT, TRL and xllamacpp")
    parser.add_argument("--gguf-float32", help="the model's, by `hen export` or `hen import`")
    parser.add_argument("--gguf-float16", help="the same in float16")
    parser.add_argument("--conversations", help="a file of SMILECHAT, as messages")
    parser.add_argument("--pairs", help="a file of the HH-RLHF form")
    parser.add_argument("--maxtext-python", help="with MaxText")
    parser.add_argument("--checkout", help="an earlier one of ours")
    return parser.parse_args(arguments)


def measure(name: str, benchmark: Benchmark, options: argparse.Namespace) -> bool:
    """Runs a benchmark unless its figures are there; False: it failed."""
    given = {one: vars(options)[flag[2:].replace("-", "_")] for one, flag in FILLED.items()}
    absent = [one for one in FILLED if f"{{{one}}}" in benchmark.command and not given[one]]
    if absent:
        print(f"{name}: left out; give {', '.join(FILLED[one] for one in absent)}", flush=True)
        return True
    kept, code = options.results / f"{name}.json", code_of(ROOT)
    known = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    mine = {"command": benchmark.command, "code": code, "machine": duel.machine()}
    if not options.again and code and all(known.get(key) == value for key, value in mine.items()):
        print(f"{name}: there, of {known['day']}", flush=True)
        return True
    out = options.results / "running" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    for old in in_order(out):
        old.unlink()
    script, *words = shlex.split(benchmark.command.format(**given))
    print(f"{name}: {script} {shlex.join(words)}", flush=True)
    command = [sys.executable, str(HERE / script), *words, "--out", str(out)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        return False
    reports = [json.loads(path.read_text("utf-8")) for path in in_order(out)]
    write(kept, mine | found(benchmark, reports))
    for path in in_order(out):
        path.unlink()
    return True


def in_order(out: Path) -> list[Path]:
    """The reports of a benchmark; those of more rows later."""
    paths = [*out.parent.glob(out.name), *out.parent.glob(f"{out.stem}-*.json")]
    return sorted(paths, key=lambda path: (len(path.stem), path.stem))


def found(benchmark: Benchmark, reports: Reports) -> dict[str, Any]:
    """What is kept of a benchmark's reports."""
    versions: dict[str, str] = {}
    for one in reports:
        versions |= one.get("versions", {})
    return {
        "day": datetime.date.today().isoformat(),
        **benchmark.read(reports)._asdict(),
        "versions": versions,
        "note": "",
        "reports": list(reports),
    }


def code_of(root: Path) -> str:
    """The git tree of hen_jax/; empty where it is changed or unknown, and then never the same."""
    git = ["git", "-C", str(root)]
    told = [
        subprocess.run([*git, *words], capture_output=True, text=True, check=False)
        for words in (["rev-parse", "HEAD:hen_jax"], ["status", "--porcelain", "hen_jax"])
    ]
    clean = all(one.returncode == 0 for one in told) and not told[1].stdout.strip()
    return told[0].stdout.strip() if clean else ""


def write(path: Path, node: Any) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(node, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())

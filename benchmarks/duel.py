"""Duels: contenders in fresh processes, in turn; medians, ratios with their spread, peak memory.

A benchmark is a file with *sides*, functions that measure, and one that lets them meet:

    import duel

    def ours(task: dict) -> dict:      # a process of its own: import what it needs in here
        return duel.timed(step, task["repeats"]) | {"amount": 512, "loss": 2.31}

    def theirs(task: dict) -> dict: ...                  # in the peer's interpreter, same keys

    def compare() -> None:
        options = duel.arguments(__doc__).parse_args()   # --peer-python, --rounds, --out
        task = {"model": "models/smollm2-135m", "repeats": 3}          # whatever JSON can say
        sides = {
            "ours": duel.Side("ours", task),
            "theirs": duel.Side("theirs", task, options.peer_python),
        }
        runs = duel.meet(sides, options.rounds)
        duel.report(runs, "theirs", options.out, show=("loss",))

    if __name__ == "__main__":
        duel.main(compare, ours, theirs)

A side returns `seconds` (one number or a list, of which the median counts) and may return
`cpu_seconds` (alike), `amount` (the work done in those seconds, 1 unless told; speeds are compared
by `amount / seconds`), and anything else that JSON can say. The runner adds `peak_bytes` unless the
side told it, `versions` and `load_before`.

The protocol: `PYTHON FILE --side NAME`, the task as JSON on stdin, the result as JSON on stdout;
what a side prints goes to stderr. This module needs the standard library only, as a peer's
interpreter has no hen_jax.
"""  # fmt: skip

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

IGNORED = -100
"""The label of a token that does not train, as torch has it."""

TOLD = (
    "jax", "jaxlib", "libtpu", "flax", "numpy", "hen_jax", "torch", "transformers", "trl", "peft",
    "datasets", "tokenizers", "llama_cpp", "lm_eval", "maxtext",
)  # fmt: skip
"""Packages whose version is told where a side has loaded them."""

Runs = Mapping[str, Sequence[dict]]
"""By contender, what its side returned in each round; none where it did not fit in memory."""


class Side(NamedTuple):
    """A contender: what is called with what, by which interpreter."""

    call: str  # a function of the benchmark's own file, or "OTHER_FILE.py:function" beside it
    task: Mapping[str, Any]
    python: str = sys.executable
    environ: Mapping[str, str] = {}  # added to ours


def cpu_seconds() -> float:
    """Seconds of computing by all threads of this process so far; blind to other processes."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_bytes() -> int:
    """The most memory this process ever held (Linux).

    From `/proc`, not from `ru_maxrss`: that one starts at what the parent held when it forked.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this kernel does not tell the peak memory (VmHWM in /proc/self/status)")


def timed(call: Callable[[], Any], repeats: int = 1) -> dict[str, list[float]]:
    """`seconds` and `cpu_seconds` of each of that many calls; a call waits for its own result."""
    seconds, cpu = [], []
    for _ in range(repeats):
        began, before = time.perf_counter(), cpu_seconds()
        call()
        seconds.append(time.perf_counter() - began)
        cpu.append(cpu_seconds() - before)
    return {"seconds": seconds, "cpu_seconds": cpu}


def meet(sides: Mapping[str, Side], rounds: int, *, may_not_fit: bool = False) -> Runs:
    """Every side once a round, in turn, each in a fresh process.

    With `may_not_fit`, a side that the system killed, as it does where memory runs out, has no runs
    and is not started again; any other end but a result ends the benchmark.
    """
    runs: dict[str, list[dict]] = {name: [] for name in sides}
    lost: set[str] = set()
    for _ in range(rounds):
        for name, side in sides.items():
            if name in lost:
                continue
            found = _run(side, may_not_fit)
            if found is None:
                lost.add(name)
                runs[name].clear()
                print(f"{name}: does not fit", file=sys.stderr, flush=True)
                continue
            runs[name].append(found)
            if "seconds" in found:
                print(f"{name}: {_middle(found['seconds']):.3f} s", file=sys.stderr, flush=True)
    return runs


def _run(side: Side, may_not_fit: bool) -> dict | None:
    benchmark = Path(sys.argv[0]).resolve()
    file, _, name = side.call.rpartition(":")
    command = [side.python, str(benchmark.with_name(file or benchmark.name)), "--side", name]
    load = os.getloadavg()[0]
    done = subprocess.run(
        command,
        input=json.dumps(dict(side.task)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | dict(side.environ),
    )
    if may_not_fit and done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {done.returncode}")
    return json.loads(done.stdout) | {"load_before": load}


def main(compare: Callable[[], Any], *sides: Callable[[dict], dict]) -> None:
    """The last line of a benchmark: answers as a side where it was started as one."""
    if sys.argv[1:2] != ["--side"]:
        raise SystemExit(compare())
    (side,) = (one for one in sides if one.__name__ == sys.argv[2])
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not stand in the result
    found = side(json.load(sys.stdin))
    found = {"peak_bytes": peak_bytes(), "versions": _versions()} | found
    with os.fdopen(answer, "w", encoding="utf-8") as out:
        json.dump(found, out)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in TOLD:
        if name in sys.modules:
            found[name] = importlib.metadata.version(name)
    return found


class Ratio(NamedTuple):
    """How many times one is the other: of the medians, and the range over the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """`ours / theirs`, round by round; both hold one number a round."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ours) / statistics.median(theirs), min(each), max(each))


def speeds(runs: Sequence[dict], clock: str = "seconds") -> list[float]:
    """Work per second of each round, by `seconds` or `cpu_seconds`."""
    return [run.get("amount", 1) / _middle(run[clock]) for run in runs]


def fastest(runs: Runs, side: str) -> str:
    """The fastest of the contenders whose names begin with that."""
    mine = [name for name, some in runs.items() if some and name.startswith(side)]
    if not mine:
        raise SystemExit(f"no contender that begins with {side!r} was run, or none fitted")
    return max(mine, key=lambda name: statistics.median(speeds(runs[name])))


def report(runs: Runs, against: str, out: Path | None = None, show: Iterable[str] = ()) -> dict:
    """Prints a line for each contender, and its ratios to the one named `against`; writes JSON.

    `show` names fields of the results that get a column: their median.
    """
    show = list(show)
    rows = {name: _summary(some, runs[against], show) for name, some in runs.items() if some}
    print(
        f"{'':<28}{'seconds':>10}{'CPU s':>10}{'peak GB':>9}"
        + "".join(f"{name:>12}" for name in show)
        + f"  times as fast as {against}, of its memory"
    )
    for name, row in rows.items():
        cells = "".join(f"{row[one]:>12.4g}" for one in show)
        print(
            f"{name:<28}{row['seconds']:>10.3f}{row['cpu_seconds'] or 0:>10.2f}"
            f"{row['peak_bytes'] / 1e9:>9.2f}{cells}  {Ratio(*row['speed'])}, "
            f"{Ratio(*row['peak']).median:.2f}"
        )
    every = [run for some in runs.values() for run in some]
    result = {
        "machine": machine(),
        "versions": {name: told for run in every for name, told in run["versions"].items()},
        "against": against,
        "did_not_fit": [name for name, some in runs.items() if not some],
        "rows": rows,
        "runs": dict(runs),
    }
    print(", ".join(f"{name} {told}" for name, told in result["versions"].items()))
    if out is not None:
        out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _summary(mine: Sequence[dict], theirs: Sequence[dict], show: Sequence[str]) -> dict:
    both = [*mine, *theirs]
    by_cpu = all("cpu_seconds" in run for run in both)
    cpu = ratio(speeds(mine, "cpu_seconds"), speeds(theirs, "cpu_seconds")) if by_cpu else None
    peaks = ([run["peak_bytes"] for run in side] for side in (mine, theirs))
    told = [_middle(run["cpu_seconds"]) for run in mine if "cpu_seconds" in run]
    return {
        "seconds": statistics.median(_middle(run["seconds"]) for run in mine),
        "cpu_seconds": statistics.median(told) if told else None,
        "peak_bytes": max(run["peak_bytes"] for run in mine),
        "speed": ratio(speeds(mine), speeds(theirs)),
        "speed_by_cpu_seconds": cpu,
        "peak": ratio(*peaks),
    } | {name: statistics.median(run.get(name, 0.0) for run in mine) for name in show}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":")[1].strip() for line in told if line.startswith("model name")]
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {"cpu": names[:1], "cores": os.cpu_count(), "memory_bytes": pages * size}


def arguments(doc: str, rounds: int = 3, peer: str = ".venv-interop") -> argparse.ArgumentParser:
    """What the command line of every duel has; a benchmark adds its own."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--peer-python", default=f"{peer}/bin/python")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path, default=Path(f"{Path(sys.argv[0]).stem}.json"))
    return parser


def _middle(value: float | Sequence[float]) -> float:
    return statistics.median(value) if isinstance(value, Sequence) else value

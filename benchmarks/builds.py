"""This build against another checkout: start-up, the time of a step, and the digits of a run.

    python benchmarks/builds.py --peer ../base --config configs/sft.py:tiny configs/emcl.py:tiny

`cold` and `warm` are from typing `hen run` to the first update, each start a fresh process in a
fresh work directory, ended when metrics.jsonl names that update. Warm: the caches of the build
(model, compiled programs, tokenizer) hold what an earlier start left. Cold: only the imported model
is there. `steps` is a whole run: the median of the seconds that it tells of its updates, after the
first three; its losses are compared digit by digit. By CPU seconds, other work on the machine
matters little to a start.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duel

LEFT_OUT = 3
"""Updates at the beginning that tell of compiling, and of caches that fill."""


@contextmanager
def running(task: dict) -> Iterator[tuple[subprocess.Popen, Path]]:
    """`hen run` of the build in `task["build"]`, and its metrics.jsonl."""
    environ = os.environ | {
        "PYTHONPATH": task["build"],
        "HEN_CACHE": task["cache"],
        "JAX_PLATFORMS": "cpu",
    }
    with tempfile.TemporaryDirectory() as workdir:
        words = [f"--config={task['config']}", f"--workdir={workdir}", *task["words"]]
        process = subprocess.Popen(
            [sys.executable, "-m", "hen_jax.cli", "run", *words],
            env=environ,
            cwd=task["build"],
            stdout=subprocess.DEVNULL,
        )
        yield process, Path(workdir) / "metrics.jsonl"


def start(task: dict) -> dict:
    """One start, ended at its first update."""
    cache = Path(task["cache"])
    for entry in cache.iterdir() if task["cold"] and cache.exists() else ():
        if entry.name != "models":
            shutil.rmtree(entry)
    began = time.perf_counter()
    with running(task) as (process, metrics):
        while not (metrics.exists() and '"train"' in metrics.read_text()):
            if process.poll() is not None:
                raise SystemExit(f"{task['build']}: `hen run` ended with {process.returncode}")
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        process.kill()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0  # it was waited for
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}


def steps(task: dict) -> dict:
    """One whole run."""
    with running(task) as (process, metrics):
        if process.wait():
            raise SystemExit(f"{task['build']}: `hen run` ended with {process.returncode}")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    told = [line for line in lines if line["kind"] == "train"]
    seconds = [line["seconds"] for line in told[LEFT_OUT:]]
    return {"seconds": seconds, "losses": [line["loss"] for line in told]}


def compare() -> None:
    parser = duel.arguments(__doc__, rounds=5)
    parser.add_argument("--peer", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--config", nargs="+", default=["configs/sft.py:tiny"])
    parser.add_argument("--what", nargs="+", default=["cold", "warm", "steps"])
    options, words = parser.parse_known_args()  # further words go to `hen run`
    builds = {"peer": options.peer.absolute(), "ours": Path(__file__).parent.parent.absolute()}
    for config in options.config:
        with tempfile.TemporaryDirectory() as folder:
            task = {"config": config, "words": words}
            tasks = {
                name: task | {"build": str(build), "cache": f"{folder}/{name}"}
                for name, build in builds.items()
            }
            meet(tasks, "warm", 1)  # imports the model
            for what in options.what:
                runs = meet(tasks, what, options.rounds)
                print(f"\n{config}, {what}")
                name = f"{options.out.stem}-{Path(config).stem}-{what}"
                show(duel.report(runs, "peer", options.out.with_stem(name)))


def meet(tasks: dict[str, dict], what: str, rounds: int) -> duel.Runs:
    call = "steps" if what == "steps" else "start"
    cold = {"cold": what == "cold"}
    return duel.meet({name: duel.Side(call, task | cold) for name, task in tasks.items()}, rounds)


def show(found: dict) -> None:
    by_cpu = found["rows"]["ours"]["speed_by_cpu_seconds"]
    if by_cpu is not None:
        print(f"by CPU seconds {duel.Ratio(*by_cpu)}")
    losses = [some[0].get("losses", []) for some in found["runs"].values()]
    if any(losses):
        apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
        print(f"largest difference of {len(losses[0])} losses: {apart:.1e}")


if __name__ == "__main__":
    duel.main(compare, start, steps)

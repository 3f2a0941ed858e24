"""From typing `hen run` to the first update: this build against another checkout.

    python benchmarks/startup.py --peer ../base

Each start is a fresh process in a fresh work directory, ended when metrics.jsonl names the first
update. Warm: the caches of the build (model, compiled programs, tokenizer) hold what an earlier
start left. Cold: only the imported model is there. CPU seconds count most: other work on the
machine delays a process, but adds little to them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duel


def start(task: dict) -> dict:
    """One start of the build in `task["build"]`, ended at its first update."""
    cache = Path(task["cache"])
    for entry in cache.iterdir() if task["cold"] and cache.exists() else ():
        if entry.name != "models":
            shutil.rmtree(entry)
    environ = os.environ | {
        "PYTHONPATH": task["build"],
        "HEN_CACHE": task["cache"],
        "JAX_PLATFORMS": "cpu",
    }
    with tempfile.TemporaryDirectory() as workdir:
        words = ["-m", "hen_jax.cli", "run", f"--config={task['config']}", f"--workdir={workdir}"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words], env=environ, cwd=task["build"], stdout=subprocess.DEVNULL
        )
        metrics = Path(workdir) / "metrics.jsonl"
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


def compare() -> None:
    parser = duel.arguments(__doc__, rounds=5)
    parser.add_argument("--peer", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--config", default="configs/sft.py:tiny")
    options = parser.parse_args()
    builds = {"peer": options.peer.absolute(), "ours": Path(__file__).parent.parent.absolute()}
    with tempfile.TemporaryDirectory() as folder:
        tasks = {
            name: {"build": str(build), "cache": f"{folder}/{name}", "config": options.config}
            for name, build in builds.items()
        }

        def sides(cold: bool) -> dict[str, duel.Side]:
            return {name: duel.Side("start", task | {"cold": cold}) for name, task in tasks.items()}

        duel.meet(sides(cold=False), 1)  # imports the model
        for state, cold in (("cold", True), ("warm", False)):
            runs = duel.meet(sides(cold), options.rounds)
            print(f"\n{state}")
            found = duel.report(runs, "peer", options.out.with_stem(f"{options.out.stem}-{state}"))
            print(f"by CPU seconds {duel.Ratio(*found['rows']['ours']['speed_by_cpu_seconds'])}")


if __name__ == "__main__":
    duel.main(compare, start)

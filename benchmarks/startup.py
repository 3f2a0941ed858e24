"""From typing `hen run` to the first update: this build against another, in alternating rounds.

    python benchmarks/startup.py --peer ../base

Each start is a fresh process in a fresh work directory, ended when metrics.jsonl names the first
update. Warm: the caches of the build (model, compiled programs, tokenizer) hold what an earlier
start left. Cold: only the imported model is there. CPU seconds count most: other work on the
machine delays a process, but adds little to them.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent.parent


class Start(NamedTuple):
    """What a start took, in seconds."""

    wall: float
    cpu: float


def start(build: Path, cache: Path, config: str) -> Start:
    """One start of the build in that folder, ended at its first update."""
    environ = os.environ | {
        "PYTHONPATH": str(build),
        "HEN_CACHE": str(cache),
        "JAX_PLATFORMS": "cpu",
    }
    with tempfile.TemporaryDirectory() as workdir:
        words = ["-m", "hen_jax.cli", "run", f"--config={config}", f"--workdir={workdir}"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words], env=environ, cwd=build, stdout=subprocess.DEVNULL
        )
        metrics = Path(workdir) / "metrics.jsonl"
        while not (metrics.exists() and '"train"' in metrics.read_text()):
            if process.poll() is not None:
                raise SystemExit(f"{build}: `hen run` ended with {process.returncode}")
            time.sleep(0.01)
        wall = time.perf_counter() - began
        process.kill()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0  # it was waited for
        return Start(wall, used.ru_utime + used.ru_stime)


def clear(cache: Path) -> None:
    """Leaves only the imported models in a cache."""
    for entry in cache.iterdir() if cache.exists() else ():
        if entry.name != "models":
            shutil.rmtree(entry)


def compare(builds: dict[str, Path], folder: Path, config: str, rounds: int, cold: bool) -> None:
    """Alternating rounds; prints medians and their ratio."""
    found: dict[str, list[Start]] = {name: [] for name in builds}
    for _ in range(rounds):
        for name, build in builds.items():
            if cold:
                clear(folder / name)
            found[name].append(start(build, folder / name, config))
    for what in Start._fields:
        theirs, ours = (
            statistics.median(one._asdict()[what] for one in found[name]) for name in builds
        )
        each = [f"{one._asdict()[what]:.2f}" for rounds in found.values() for one in rounds]
        print(
            f"{'cold' if cold else 'warm'} {what:4s} {theirs:6.2f} s -> {ours:6.2f} s: "
            f"{theirs / ours:.2f}x as fast ({', '.join(each)})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--config", default="configs/sft.py:tiny")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    builds = {"peer": options.peer.absolute(), "ours": HERE.absolute()}
    with tempfile.TemporaryDirectory() as folder:
        for name, build in builds.items():
            start(build, Path(folder) / name, options.config)  # imports the model
        for cold in (False, True):
            compare(builds, Path(folder), options.config, options.rounds, cold)


if __name__ == "__main__":
    main()

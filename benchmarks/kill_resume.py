"""SIGKILL at random moments: does a run that was killed over and over end as one that was not?

    python benchmarks/kill_resume.py --kills 20
    python benchmarks/kill_resume.py --kills 10 --recipe emcl

A 100-update run of the tiny model with a checkpoint every 5 updates, or of the meta-curriculum one
of 24 with a checkpoint every 2, whose state holds the difficulties learnt so far. Every other kill
waits until a checkpoint is being written. A run that ends before it is killed is started over in a
new folder. Checked at the end of each: the same final state, bit for bit, the same losses of all
updates, and that each attempt went on from the newest checkpoint there was when the one before was
killed. About ten minutes on 2 cores.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from hen_jax.core.trees import flatten
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.metrics import read_metrics

ROOT = Path(__file__).parent.parent


class Run(NamedTuple):
    """What is killed."""

    updates: int
    flags: list[str]


RUNS = {
    "sft": Run(
        100,
        [
            f"--config={ROOT / 'configs' / 'sft.py'}:tiny",
            "--config.data.batch_size=8",
            f"--config.epochs={100 / 32.5}",
            "--config.loop.checkpoint_every=5",
        ],
    ),
    "emcl": Run(
        24,
        [
            f"--config={ROOT / 'configs' / 'emcl.py'}:tiny",
            "--config.steps=24",
            "--config.loop.checkpoint_every=2",
        ],
    ),
}


def begin(run: Run, workdir: Path) -> subprocess.Popen:
    """The run, or its next attempt, as a process."""
    command = [sys.executable, "-m", "hen_jax.cli", "run", *run.flags, f"--workdir={workdir}"]
    environ = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def steps_done(workdir: Path) -> int:
    """The last update in the log."""
    if not (workdir / "metrics.jsonl").exists():
        return 0
    return max((line["step"] for line in read_metrics(workdir)), default=0)


def log_file(workdir: Path) -> int | None:
    """Which file the log is, whatever its content."""
    path = workdir / "metrics.jsonl"
    return path.stat().st_ino if path.exists() else None


def newest(workdir: Path) -> int:
    """The newest committed checkpoint's step, by the names of the folders."""
    saved = workdir / "checkpoints"
    found = (
        [int(path.name) for path in saved.iterdir() if path.name.isdigit()]
        if saved.is_dir()
        else []
    )
    return max(found, default=0)


def kill(run: Run, workdir: Path, while_saving: bool) -> int | None:
    """Runs an attempt until a random moment; the step it can go on from, None if it ended first."""
    log, before = log_file(workdir), newest(workdir)
    process = begin(run, workdir)
    # The log is written anew when an attempt begins, without what is to be done again.
    while process.poll() is None and (log_file(workdir) == log or steps_done(workdir) <= before):
        time.sleep(0.01)
    moment = time.monotonic() + random.uniform(0.0, 3.0)
    while process.poll() is None:
        if while_saving:
            due = any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))
        else:
            due = time.monotonic() > moment
        if due:
            time.sleep(random.uniform(0.0, 0.05))
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    return None if process.wait() == 0 else newest(workdir)


def final(run: Run, workdir: Path) -> dict[str, np.ndarray]:
    """Every leaf of the last checkpoint."""
    import orbax.checkpoint as ocp

    with closing(Checkpoints(workdir / "checkpoints", 2)) as checkpoints:
        assert checkpoints.latest() == run.updates, checkpoints.latest()
    with ocp.StandardCheckpointer() as reader:
        last = workdir / "checkpoints" / str(run.updates) / "state"
        return flatten(reader.restore(last.absolute()))


def check(run: Run, workdir: Path, whole: Path, went_on_from: list[int]) -> None:
    """Raises unless the run that was killed is the whole one."""
    ours, theirs = final(run, workdir), final(run, whole)
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)
    losses = [
        [(line["step"], line["loss"]) for line in read_metrics(folder) if line["kind"] == "train"]
        for folder in (workdir, whole)
    ]
    assert losses[0] == losses[1]
    ledger = json.loads((workdir / "goodput.json").read_text(encoding="utf-8"))
    starts = [attempt["first_step"] for attempt in ledger["attempts"]]
    # An attempt that was killed before its first checkpoint is not in the ledger.
    assert set(starts) <= {0, *went_on_from}, (starts, went_on_from)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", choices=tuple(RUNS), default="sft")
    chosen = parser.parse_args()
    run = RUNS[chosen.recipe]
    random.seed(chosen.seed)
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        assert begin(run, whole).wait() == 0
        kills, trial = 0, 0
        while kills < chosen.kills:
            trial += 1
            workdir, went_on_from = Path(folder) / f"trial{trial}", []
            while (step := kill(run, workdir, while_saving=kills % 2 == 1)) is not None:
                kills += 1
                went_on_from.append(step)
                print(f"kill {kills} of {chosen.kills}: goes on from step {step}", flush=True)
                if kills == chosen.kills:
                    assert begin(run, workdir).wait() == 0
                    break
            check(run, workdir, whole, went_on_from)
            print(
                f"run {trial}, killed {len(went_on_from)} times: the same, bit for bit", flush=True
            )


if __name__ == "__main__":
    main()

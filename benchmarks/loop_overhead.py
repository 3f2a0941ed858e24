"""What the training loop and its checkpoints cost, against the bare jitted step in a tight loop.

    python benchmarks/loop_overhead.py --out overhead.json

The quickstart's model and data. Rounds of three arms of 20 updates each, in one process: the bare
step on one batch that is already on the device; `training.loop.train` with its data, metrics, log
and alarms; the same with one checkpoint saved in the background (the config's share, 1 in 20).
Arms are compared within each round, and the medians over the rounds count. Limits: 2 % each.
About a quarter of an hour on 2 cores.
"""

import argparse
import statistics
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax

from hen_jax.core.files import write_json
from hen_jax.core.mesh import make_mesh
from hen_jax.io.packages import cache_folder
from hen_jax.recipes.launch import load_config
from hen_jax.recipes.table import stage_of
from hen_jax.runs.model import ensure_model
from hen_jax.runs.settings import settings
from hen_jax.runs.stage import Job
from hen_jax.runs.train import open_job
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.devices import start
from hen_jax.training.guards import reporting
from hen_jax.training.loop import LoopConfig, Run, counting, train
from hen_jax.training.metrics import MetricLog
from hen_jax.training.placement import initial_state, placed

CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.py"
UPDATES = 20
LIMIT = 0.02


class Saving(NamedTuple):
    """The checkpoints of an arm: as they are, but for the one that ends every call of `train`."""

    real: Checkpoints | None
    last: int

    def save(self, step: int, *what: Any) -> None:
        """Saves in the background, or not at all."""
        if self.real is not None and step != self.last:
            self.real.save(step, *what)

    def wait(self) -> None:
        """Nothing to wait for: the arm waits when its clock says so."""


def measure(variant: str, rounds: int, workdir: Path) -> dict:
    """Seconds per update of each arm, a list over the rounds."""
    config = load_config(f"{CONFIG}:{variant}", [])
    stage = stage_of(config.recipe)
    parsed = settings(stage.settings, config)
    start(cache_folder() / "xla")
    folder = ensure_model(parsed.model)
    job = open_job(stage, parsed, make_mesh(parsed.mesh), folder, workdir)
    run, state = prepared(job)
    batch = run.prepare(state, job.frozen, next(run.batches))
    bare = partial(tight_loop, run, job.frozen, batch)
    looped = partial(whole_loop, run, job.frozen, None)
    with closing(Checkpoints(workdir / "checkpoints", 2)) as checkpoints:
        saving = partial(whole_loop, run, job.frozen, checkpoints)
        arms = {"bare": bare, "loop": looped, "saving": saving}
        for arm in arms.values():  # warm: compiled, files open, the shape of a save known
            _, state = arm(state)
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(rounds):
            # The order turns, so that a machine that slows down favours none.
            names = list(arms)[number % 3 :] + list(arms)[: number % 3]
            for name in names:
                spent, state = arms[name](state)
                seconds[name].append(spent / UPDATES)
    run.log.close()
    return seconds


def prepared(job: Job) -> tuple[Run, Any]:
    """As `runs.train.fit` does; the state stands at 10, so that an arm saves in its middle."""
    parsed, stage, feed = job.settings, job.stage, job.feed
    made = stage.work(parsed, job.model.config, job.model.graphdef, feed.bounds, 100 * UPDATES)
    state = initial_state(job.trainable, made.optimizer, parsed.seed, job.mesh)
    state = state._replace(step=state.step + UPDATES // 2)
    run = Run(
        step=placed(counting(reporting(made.step)), state),
        evaluate=lambda _: {"loss": 0.0},
        prepare=stage.prepare(job),
        schedule=made.schedule,
        batches=feed.batches,
        checkpoints=Saving(None, 0),  # pyright: ignore
        log=MetricLog(job.workdir, 0, 10**6, quiet=True),
        record=job.record,
    )
    return run, state


def tight_loop(run: Run, frozen: Any, batch: Any, state: Any) -> tuple[float, Any]:
    """Seconds of `UPDATES` calls of the step, and the state."""
    began = time.perf_counter()
    for _ in range(UPDATES):
        state, _ = run.step(state, frozen, batch)
    jax.block_until_ready(state)
    return time.perf_counter() - began, state


def whole_loop(run: Run, frozen: Any, real: Checkpoints | None, state: Any) -> tuple[float, Any]:
    """Seconds of as many updates by `train`, a checkpoint's writing included, and the state."""
    end = int(state.step) + UPDATES
    run = run._replace(checkpoints=Saving(real, end))  # pyright: ignore
    began = time.perf_counter()
    state = train(LoopConfig(checkpoint_every=UPDATES), run, state, frozen, end)
    jax.block_until_ready(state)
    if real is not None:
        real.wait()
    return time.perf_counter() - began, state


def report(seconds: dict[str, list[float]]) -> dict:
    """The medians over rounds, and whether they keep the limits."""
    loop, saving = (
        statistics.median(
            arm / base - 1 for arm, base in zip(seconds[one], seconds[other], strict=True)
        )
        for one, other in (("loop", "bare"), ("saving", "loop"))
    )
    return {
        "seconds_per_update": seconds,
        "loop_overhead": loop,
        "checkpoint_overhead": saving,
        "kept": loop <= LIMIT and saving <= LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="smollm2", help="of configs/quickstart.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = report(measure(chosen.variant, chosen.rounds, Path(folder) / "run"))
    for name, arm in found["seconds_per_update"].items():
        print(f"{name:8} {', '.join(f'{one:.4f}' for one in arm)} s per update")
    print(f"the loop adds {found['loop_overhead']:+.2%}, a checkpoint in {UPDATES} updates "
          f"{found['checkpoint_overhead']:+.2%}; limit {LIMIT:.0%} each: "
          f"{'kept' if found['kept'] else 'MISSED'}")  # fmt: skip
    if chosen.out:
        write_json(chosen.out, found)


if __name__ == "__main__":
    main()

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
from hen_jax.data.pipeline import train_batches
from hen_jax.io.packages import cache_folder
from hen_jax.recipes.launch import load_config
from hen_jax.recipes.sft import Session, SftSettings, bounds, open_session, training
from hen_jax.runs.settings import settings
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.devices import start
from hen_jax.training.loop import LoopConfig, Run, train
from hen_jax.training.metrics import MetricLog
from hen_jax.training.placement import initial_state, placed, to_devices

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
    parsed = settings(SftSettings, load_config(f"{CONFIG}:{variant}", []))
    start(cache_folder() / "xla")
    session = open_session(parsed, workdir)
    run, state = prepared(session, workdir)
    batch = run.put(next(run.batches))
    bare = partial(tight_loop, run, session.frozen, batch)
    looped = partial(whole_loop, run, session.frozen, None)
    with closing(Checkpoints(workdir / "checkpoints", 2)) as checkpoints:
        saving = partial(whole_loop, run, session.frozen, checkpoints)
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


def prepared(session: Session, workdir: Path) -> tuple[Run, Any]:
    """As `recipes.sft.fit` does; the state stands at 10, so that an arm saves in its middle."""
    parsed = session.settings
    made = training(parsed, session.model.graphdef, 100 * UPDATES, bounds(session))
    state = initial_state(session.trainable, made.optimizer, parsed.seed, session.mesh)
    state = state._replace(step=state.step + UPDATES // 2)
    run = Run(
        step=placed(made.step, state),
        evaluate=lambda _: {"loss": 0.0},
        put=to_devices(session.mesh),
        schedule=made.schedule,
        batches=train_batches(session.examples.train, parsed.data),
        checkpoints=Saving(None, 0),  # pyright: ignore
        log=MetricLog(workdir, 0, 10**6, quiet=True),
        record=session.record,
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

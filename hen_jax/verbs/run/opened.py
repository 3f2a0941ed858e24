"""A stage opened for experiments: its state, its step, its batches, in one call."""

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

from hen_jax.core.mesh import make_mesh
from hen_jax.core.types import Tree
from hen_jax.recipes.table import stage_of
from hen_jax.runs.model import ensure_model
from hen_jax.runs.settings import settings
from hen_jax.runs.stage import Job, Work
from hen_jax.runs.train import begin, open_job
from hen_jax.steps.state import State
from hen_jax.steps.update import Metrics
from hen_jax.training.counted import counting
from hen_jax.training.guards import reporting
from hen_jax.training.placement import initial_state, placed
from hen_jax.verbs.run.launch import load_config


class Opened(NamedTuple):
    """A stage before its first update.

    `state, metrics = opened.step(state, opened.frozen, opened.batch(state))` is one update; a
    metric's `value` is its mean. `opened.work` holds the pure functions: `step`, and `score`, which
    is `score(params, frozen, batch) -> (Mean, metrics)`, a loss that any gradient may be taken of.
    """

    job: Job
    work: Work
    state: State
    frozen: Tree
    step: Callable[
        [State, Tree, Any], tuple[State, Metrics]
    ]  # jitted; the state it is given is gone
    batch: Callable[[State], Any]  # the next one, on the devices; of a policy it draws replies


def open_stage(config_file: str, *overrides: str, workdir: Path | None = None) -> Opened:
    """A config opened as `hen run` opens it, without training: `open_stage("sft:tiny", "seed=1")`.

    Args:
      config_file: a built-in name or a file, with its variant.
      overrides: fields, such as `data.batch_size=2`.
      workdir: for what stages write, such as recordings; a temporary folder where none is given.

    Raises:
      InputError: what `hen run` would refuse.
    """
    config = load_config(config_file, [f"--config.{one}" for one in overrides])
    stage = stage_of(config.get("recipe"))
    read = settings(stage.settings, config)
    mesh = make_mesh(read.mesh)
    stage.check(read, mesh)
    folder = Path(mkdtemp(prefix="hen_jax-")) / "run" if workdir is None else workdir
    job = open_job(stage, read, mesh, ensure_model(read.model), folder)
    begun = begin(job)
    state = initial_state(begun.params, begun.work.optimizer, read.seed, mesh, begun.work.memory)
    prepare = stage.prepare(job)
    return Opened(
        job,
        begun.work,
        state,
        begun.frozen,
        placed(counting(reporting(begun.work.step)), begun.like),
        lambda state: prepare(state, begun.frozen, next(job.feed.batches)),
    )

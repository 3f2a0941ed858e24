"""A run of any stage: from settings to a finished folder.

The order of start-up, written down once:

1. what can be refused without reading is refused: names of plug-ins, the mesh, `stage.check`;
2. `folder = ensure_model(...)`: the base model is fetched, if it is not there yet;
3. `open_job`: `stage.check_model`, the tokenizer, the data, the weights; then the run's record is
   written to the work directory, or compared with the one that is there (`claim`);
4. `fit`: the newest checkpoint, or the first state; then the updates that are left.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import make_mesh, replicated
from hen_jax.core.trees import count
from hen_jax.core.types import Tree
from hen_jax.io import hf
from hen_jax.models.config import LoraConfig
from hen_jax.runs.earlier import (
    Partition,
    continued_from,
    new_adapters,
    previous_run,
    saved_adapters,
    trainable_and_frozen,
)
from hen_jax.runs.evaluators import named_evaluators, require_evaluators
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import BaseModel, base_dtype, ensure_model, open_model
from hen_jax.runs.record import claim, run_record
from hen_jax.runs.stage import Job, RunSettings, Stage, Work, beginning, decoder_lora
from hen_jax.steps.state import State
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.counted import counting
from hen_jax.training.guards import reporting
from hen_jax.training.held_out import evaluator
from hen_jax.training.loop import Run, train
from hen_jax.training.metrics import MetricLog
from hen_jax.training.placement import abstract_state, initial_state, placed
from hen_jax.training.processes import primary_first, row_share
from hen_jax.training.progress import ALONE, Place
from hen_jax.training.trackers import require_trackers


def run(stage: Stage, settings: Any, workdir: Path, place: Place = ALONE) -> State:
    """Trains, or goes on where a killed run stopped; returns the state after the last update.

    `place` is where the run stands among those that one command starts, for its progress.

    Raises:
      InputError: as `open_job`, or a mesh or a plug-in that is not there.
    """
    require_trackers(settings.loop.trackers)
    require_evaluators(stage, settings.loop)
    mesh = make_mesh(settings.mesh)
    row_share(mesh)  # refuses a mesh whose rows the processes cannot share
    stage.check(settings, mesh)
    folder = primary_first(lambda: ensure_model(settings.model))
    job = open_job(stage, settings, mesh, folder, workdir)
    stage.before(job)
    state = fit(job, place)
    stage.after(job)
    return state


def open_job(stage: Stage, settings: Any, mesh: Mesh, folder: Path, workdir: Path) -> Job:
    """Reads the data and the model in `folder`, then claims the work directory.

    Raises:
      InputError: bad settings, model or data, or a work directory that holds something else.
    """
    config = stage.model_config(settings, hf.read_config(folder))
    stage.check_model(settings, config)
    tokenizer = known_tokenizer(folder)
    feed = primary_first(lambda: stage.feed(settings, tokenizer, row_share(mesh)))
    model = open_model(
        folder,
        mesh,
        lora=decoder_lora(stage, settings),
        execution=settings.execution,
        dtype=base_dtype(settings.model, settings.adapter),
        rules=settings.mesh.rules,
        config=config,
        seed=settings.seed,
    )
    adapters = None if stage.adapters is None else stage.adapters(settings)
    trainable, frozen = (
        _divide(settings, model) if adapters is None else _experts(settings, adapters, model)
    )
    record = run_record(settings, folder, model.config, stage.summary(settings), adapters)
    primary_first(lambda: claim(workdir, record))
    extra = jax.eval_shape(lambda: stage.extra(settings, model.config, jax.random.key(0)))
    learns, stays = count(trainable) + count(extra), count(frozen)
    print(
        f"{learns:,} of {learns + stays:,} parameters train; "
        f"{feed.steps} updates on {len(mesh.devices.flat)} device(s)"
    )
    return Job(stage, settings, workdir, mesh, tokenizer, model, feed, trainable, frozen, record)


def fit(job: Job, place: Place = ALONE) -> State:
    """Runs the updates that are left, from the newest checkpoint if there is one.

    The parameters are never held twice: the first state takes those of the job over, and one that
    is restored replaces them.
    """
    settings, feed, stage, config = job.settings, job.feed, job.stage, job.model.config
    work, params, frozen, like = begin(job)
    prepare = stage.prepare(job)
    folder, keep = job.workdir / "checkpoints", settings.loop.keep_checkpoints
    with closing(Checkpoints(folder, keep)) as checkpoints:
        checkpoints.clear_away()
        start = checkpoints.latest() or 0
        with closing(_log(job, start, place)) as log:
            loop = Run(
                step=placed(counting(reporting(work.step)), like),
                evaluate=evaluator(work.score, frozen, prepare, feed.held_out),
                prepare=prepare,
                schedule=jax.jit(work.schedule),  # one program and not one per operation
                batches=feed.batches,
                checkpoints=checkpoints,
                log=log,
                record=job.record,
                records=feed.records,
                beyond=feed.beyond,
                flops=lambda number: stage.flops(settings, config, number),
                evaluators=named_evaluators(job),
                flags=stage.flags(settings),
                first=partial(stage.first, job),
            )
            state = _state(job, work, loop, like, params)
            return train(settings.loop, loop, state, frozen, feed.steps)


class Begun(NamedTuple):
    """What a run computes, and what it computes it with, before its first update."""

    work: Work
    params: Tree  # that train
    frozen: Tree
    like: State  # shapes and shardings of the first state


def begin(job: Job) -> Begun:
    """The stage's work, and its trees as they are when the first update begins."""
    settings, feed, stage, config = job.settings, job.feed, job.stage, job.model.config
    work = stage.work(settings, config, job.model.graphdef, feed.bounds, feed.steps)
    begun = stage.extra(settings, config, jax.random.key(settings.seed))
    extra = jax.device_put(begun, replicated(job.mesh))
    params, frozen = beginning(stage, settings, job.trainable, job.frozen, extra)
    like = abstract_state(params, work.optimizer, settings.seed, job.mesh, work.memory)
    return Begun(work, params, _apart(frozen, params), like)


def _log(job: Job, start: int, place: Place) -> MetricLog:
    settings: RunSettings = job.settings
    return MetricLog(
        job.workdir,
        start,
        job.feed.steps,
        trackers=settings.loop.trackers,
        headline=job.stage.headline,
        place=place,
    )


def _state(job: Job, work: Work, loop: Run, like: State, params: Tree) -> State:
    """The newest checkpoint's state, with the data at its place; else the first state.

    A run may go on with another number of devices or processes: the place in the data is a number
    of global batches, so the same rows follow (see `data.pipeline`).
    """
    if loop.checkpoints.latest() is None:
        return initial_state(params, work.optimizer, job.settings.seed, job.mesh, work.memory)
    for leaf in jax.tree.leaves(params):
        leaf.delete()
    state, place = loop.checkpoints.restore(like)
    loop.batches.set_state(place)
    return state


def _apart(frozen: Tree, params: Tree) -> Tree:
    """`frozen` with copies of the leaves that train: a step replaces those."""
    training = set(map(id, jax.tree.leaves(params)))
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if id(leaf) in training else leaf, frozen)


def _divide(settings: RunSettings, model: BaseModel) -> Partition:
    """What trains, fresh or from an earlier run, and what does not."""
    if settings.start is None:
        return trainable_and_frozen(model, settings.adapter, settings.execution, settings.seed)
    run = Path(settings.start)
    earlier = previous_run(run)
    if not _same_shapes(earlier.lora, settings.adapter) or earlier.base != model.folder.absolute():
        raise InputError(
            f"config.start: the run in {run} trained {earlier.lora} on {earlier.base}; give the "
            "same config.adapter and config.model here"
        )
    return continued_from(run, model, settings.adapter)


def _experts(
    settings: RunSettings, adapters: Mapping[str, LoraConfig], model: BaseModel
) -> Partition:
    """Adapters side by side: fresh, or as the run `config.start` left those of the same name.

    If that run trained a single adapter of their shape, all of them start from it.
    """
    made = new_adapters(model, adapters, settings.execution, settings.seed)
    if settings.start is None:
        return made
    run = Path(settings.start)
    earlier = previous_run(run)
    same_base = earlier.base == model.folder.absolute()
    if same_base and earlier.lora is not None and {earlier.lora} == set(adapters.values()):
        one = continued_from(run, model, earlier.lora).trainable
        return made._replace(trainable={name: jax.tree.map(jnp.copy, one) for name in adapters})
    known = {name: lora for name, lora in earlier.adapters.items() if name in adapters}
    if not same_base or not known or any(adapters[name] != lora for name, lora in known.items()):
        raise InputError(
            f"config.start: the run in {run} trained {earlier.lora or dict(earlier.adapters)} on "
            f"{earlier.base}; give the experts that go on the same name, rank, alpha and targets "
            "here, and the same config.model"
        )
    return made._replace(trainable=made.trainable | saved_adapters(run, model, known))


def _same_shapes(one: LoraConfig | None, other: LoraConfig | None) -> bool:
    """Whether the adapters compute the same; what they once began with does not matter."""
    if one is None or other is None:
        return one is other
    return dataclasses.replace(one, init=other.init) == other

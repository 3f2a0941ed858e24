"""The EMCL stage from settings to checkpoints: meta-curriculum learning on labelled dialogues."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import grain
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.trees import count
from hen_jax.core.types import Tree
from hen_jax.data.episodes import Episode, episode, episode_batches
from hen_jax.data.examples import Example
from hen_jax.meta.curricula import EmclConfig, EpisodeStep, evaluation
from hen_jax.meta.emcl import emcl_step, init_memory
from hen_jax.meta.evaluations import Rows, evaluations, outer_updates
from hen_jax.meta.learnt_curricula import reply_features
from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
from hen_jax.planning.model_flops import Rows as ModelRows
from hen_jax.planning.model_flops import training_flops
from hen_jax.recipes.curriculum_plot import draw_curriculum
from hen_jax.recipes.emcl_data import EpisodeSettings, TaskExamples, put_episode, read_tasks
from hen_jax.runs.earlier import Divided, divided, earlier_run, saved_params
from hen_jax.runs.model import ModelSettings, Opened, model_folder, open_model, open_words
from hen_jax.runs.record import claim, run_record
from hen_jax.runs.sources import Source
from hen_jax.steps.sft import sft_loss
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.guards import GuardConfig, guard, reporting
from hen_jax.training.loop import LoopConfig, Run, evaluator, resume, train
from hen_jax.training.metrics import MetricLog
from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
from hen_jax.training.placement import initial_state, placed
from hen_jax.training.processes import primary_first


@dataclasses.dataclass(frozen=True)
class EmclSettings:
    """Everything that decides what an EMCL run computes."""

    recipe: Literal["emcl"]
    model: ModelSettings
    sources: tuple[Source, ...]
    tasks: tuple[str, ...]  # labels of the records, easiest first
    optimizer: OptimizerConfig  # of the outer updates
    steps: int  # episodes
    emcl: EmclConfig = EmclConfig()
    episode: EpisodeSettings = EpisodeSettings()
    adapter: LoraConfig | None = None  # None: all parameters train
    start: str | None = None  # the folder of a run to start from, such as an SFT run
    execution: Execution = Execution()
    loop: LoopConfig = LoopConfig()
    guard: GuardConfig = GuardConfig()
    mesh: MeshConfig = MeshConfig()
    logit_chunk: int = 64  # positions per row that meet the vocabulary at a time
    seed: int = 0


class Training(NamedTuple):
    """What a run computes, before it is jitted and placed."""

    loss: Loss
    optimizer: optax.GradientTransformation
    schedule: Callable[[int], Any]
    step: EpisodeStep


class Session(NamedTuple):
    """A run with everything in memory, before its first update."""

    settings: EmclSettings
    mesh: Mesh
    model: Opened
    train: TaskExamples
    valid: TaskExamples
    trainable: Tree
    frozen: Tree
    record: dict[str, Any]


def run(settings: EmclSettings, workdir: Path) -> State:
    """Trains, or goes on where a killed run stopped; draws `curriculum.png` at the end."""
    state = fit(open_session(settings, workdir), workdir)
    primary_first(lambda: draw_curriculum(workdir, settings.tasks))
    return state


def open_session(settings: EmclSettings, workdir: Path) -> Session:
    """Claims the work directory, then reads the model and the data.

    Raises:
      InputError: bad settings, model or data, or a work directory that holds something else.
    """
    mesh = make_mesh(settings.mesh)
    folder = primary_first(lambda: model_folder(settings.model))
    found = read_tasks(settings.sources, settings.tasks, settings.episode, open_words(folder))
    model = open_model(
        folder,
        mesh,
        lora=settings.adapter,
        execution=settings.execution,
        dtype=settings.model.dtype,
        rules=settings.mesh.rules,
    )
    trainable, frozen = _divide(settings, model)
    record = run_record(settings, folder, model.config)
    primary_first(lambda: claim(workdir, record))
    cost = evaluations(settings.emcl, rows_of(settings), len(settings.tasks), settings.steps).sum()
    print(
        f"{count(trainable):,} of {count(trainable) + count(frozen):,} parameters train; "
        f"{settings.steps} steps of {settings.emcl.curriculum}, {cost:,.0f} gradients of a row, "
        f"on {len(mesh.devices.flat)} device(s)"
    )
    return Session(settings, mesh, model, found.train, found.valid, trainable, frozen, record)


def fit(session: Session, workdir: Path) -> State:
    """Runs the steps that are left, from the newest checkpoint if there is one."""
    settings, mesh, frozen = session.settings, session.mesh, session.frozen
    run = training(settings, session.model.graphdef, _capacity(session))
    memory = remembered(settings, session.model.config.width)
    state = initial_state(session.trainable, run.optimizer, settings.seed, mesh, memory)
    put = partial(put_episode, mesh, settings.episode)
    saved, keep = workdir / "checkpoints", settings.loop.keep_checkpoints
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(closing(Checkpoints(saved, keep)))
        start = checkpoints.latest() or 0
        log = stack.enter_context(closing(MetricLog(workdir, start, settings.steps)))
        loop = Run(
            step=placed(run.step, state),
            evaluate=evaluator(
                evaluation(settings.emcl, run.loss, settings.tasks),
                frozen,
                put,
                partial(_held_out, session),
            ),
            put=put,
            schedule=run.schedule,
            batches=_episodes(session.train, settings),
            checkpoints=checkpoints,
            log=log,
            record=session.record,
            flops=partial(step_flops, settings, session.model.config),
        )
        return train(settings.loop, loop, resume(loop, state), frozen, settings.steps)


def training(settings: EmclSettings, graphdef: nnx.GraphDef, capacity: int) -> Training:
    """The loss, the optimizer and the step of a run; also what a plan compiles.

    `capacity` is the most positions that a row trains. The schedule is by step.
    """
    updates = outer_updates(settings.emcl, len(settings.tasks), settings.steps)
    schedule = make_schedule(settings.optimizer, int(updates.sum()))
    done = np.concatenate([[0], updates.cumsum()])
    optimizer = guard(make_optimizer(settings.optimizer, schedule), settings.guard)
    loss = sft_loss(graphdef, capacity, settings.logit_chunk)
    features = reply_features(graphdef)
    step = emcl_step(settings.emcl, loss, optimizer, settings.tasks, settings.steps, features)
    return Training(loss, optimizer, lambda number: schedule(int(done[number])), reporting(step))


def remembered(settings: EmclSettings, width: int) -> Callable[[PRNGKeyArray], Tree]:
    """What the curriculum carries before the first step."""
    return lambda key: init_memory(settings.emcl, settings.tasks, key, width + 1)


def step_flops(settings: EmclSettings, config: DecoderConfig, number: int) -> float:
    """The model's operations in step `number`, from 0.

    What a step needs is counted in gradients of a row (`meta.evaluations`), each as in fine-tuning.
    """
    tasks, length = len(settings.tasks), settings.episode.row_length
    gradients = evaluations(settings.emcl, rows_of(settings), tasks, settings.steps)[number]
    each = training_flops(config, settings.adapter, ModelRows(1, length, length))
    return float(gradients * each)


def rows_of(settings: EmclSettings) -> Rows:
    """Rows of one task in one episode."""
    return Rows(settings.episode.support_rows, settings.episode.query_rows)


def _draw(examples: TaskExamples, settings: EmclSettings, seed: int, number: int) -> Episode:
    sizes, steps = settings.episode, settings.emcl.inner_steps
    draws = episode(examples, seed, number, steps * sizes.support_rows, sizes.query_rows)
    return episode_batches(examples, draws, steps=steps, row_length=sizes.row_length)


def _episodes(examples: TaskExamples, settings: EmclSettings) -> "grain.DatasetIterator[Episode]":
    """The episodes of a run, which know their place as any stream of batches does."""
    numbers = grain.MapDataset.range(settings.steps)
    drawn = numbers.map(lambda number: _draw(examples, settings, settings.seed, int(number)))
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(drawn.to_iter_dataset(ahead))


def _held_out(session: Session) -> Iterator[Episode]:
    """The same episodes of held-out statements whatever the seed of the run."""
    for number in range(session.settings.episode.held_out):
        yield _draw(session.valid, session.settings, 0, number)


def _capacity(session: Session) -> int:
    """The most positions that any row trains."""
    parts = (session.train, session.valid)
    every: list[Example] = [x for part in parts for examples in part.values() for x in examples]
    return max(int(example.mask[1:].sum()) for example in every)


def _divide(settings: EmclSettings, model: Opened) -> Divided:
    """What trains, fresh or from an earlier run, and what does not."""
    if settings.start is None:
        return divided(model, settings.adapter, settings.execution, settings.seed)
    run = Path(settings.start)
    earlier = earlier_run(run)
    if earlier.lora != settings.adapter or earlier.base != model.folder.absolute():
        raise InputError(
            f"config.start: the run in {run} trained {earlier.lora} on {earlier.base}; give the "
            "same config.adapter and config.model here"
        )
    params = saved_params(run, model, settings.adapter)
    return Divided(params, {} if settings.adapter is None else model.base)

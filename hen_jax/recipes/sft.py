"""Supervised fine-tuning from settings to checkpoints: the SFT stage of HEN, LoRA or full."""

import dataclasses
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optax
from flax import nnx
from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.core.trees import count
from hen_jax.core.types import Tree
from hen_jax.data.pipeline import (
    PipelineConfig,
    RowBounds,
    batches_per_epoch,
    eval_batches,
    row_bounds,
    train_batches,
    train_records,
    widest,
)
from hen_jax.io import hf
from hen_jax.models.config import DecoderConfig, Execution, LongRope, LoraConfig
from hen_jax.planning.model_flops import Rows, training_flops
from hen_jax.runs.earlier import divided
from hen_jax.runs.model import (
    ModelSettings,
    Opened,
    Words,
    model_folder,
    open_model,
    open_words,
)
from hen_jax.runs.record import claim, run_record
from hen_jax.runs.sources import Prepared, Source, prepared
from hen_jax.steps.sft import sft_loss
from hen_jax.steps.state import State
from hen_jax.steps.update import Loss, Step, update_step
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.guards import GuardConfig, guard, reporting
from hen_jax.training.loop import LoopConfig, Run, evaluator, resume, train
from hen_jax.training.metrics import MetricLog
from hen_jax.training.optimizers import (
    OptimizerConfig,
    Schedule,
    make_optimizer,
    make_schedule,
)
from hen_jax.training.placement import initial_state, placed, to_devices
from hen_jax.training.processes import primary_first, row_share


@dataclasses.dataclass(frozen=True)
class SftSettings:
    """Everything that decides what an SFT run computes."""

    recipe: Literal["sft", "quickstart"]
    model: ModelSettings
    sources: tuple[Source, ...]
    optimizer: OptimizerConfig
    epochs: float
    adapter: LoraConfig | None = None  # None: all parameters train
    data: PipelineConfig = PipelineConfig()
    execution: Execution = Execution()
    loop: LoopConfig = LoopConfig()
    guard: GuardConfig = GuardConfig()
    mesh: MeshConfig = MeshConfig()
    microbatches: int = 1
    logit_chunk: int = 64  # positions per row that meet the vocabulary at a time
    seed: int = 0


class Session(NamedTuple):
    """A run with everything in memory, before its first update."""

    settings: SftSettings
    mesh: Mesh
    words: Words
    model: Opened
    examples: Prepared
    trainable: Tree
    frozen: Tree
    steps: int
    record: dict[str, Any]


class Training(NamedTuple):
    """What a run computes, before it is jitted and placed."""

    loss: Loss
    optimizer: optax.GradientTransformation
    schedule: Schedule
    step: Step


def run(settings: SftSettings, workdir: Path) -> State:
    """Trains, or goes on where a killed run stopped; returns the state after the last update."""
    return fit(open_session(settings, workdir), workdir)


def open_session(settings: SftSettings, workdir: Path) -> Session:
    """Claims the work directory, then reads the model and the data.

    Raises:
      InputError: bad settings, model or data, or a work directory that holds something else.
    """
    mesh = make_mesh(settings.mesh)
    folder = primary_first(lambda: model_folder(settings.model))
    check_packing(settings, hf.read_config(folder))
    words = open_words(folder)
    examples = primary_first(lambda: prepared(settings.sources, settings.data, words))
    model = open_model(
        folder,
        mesh,
        lora=settings.adapter,
        execution=settings.execution,
        dtype=settings.model.dtype,
        rules=settings.mesh.rules,
    )
    trainable, frozen = divided(model, settings.adapter, settings.execution, settings.seed)
    steps = max(1, round(settings.epochs * batches_per_epoch(examples.train, settings.data)))
    record = run_record(settings, folder, model.config)
    primary_first(lambda: claim(workdir, record))
    print(
        f"{count(trainable):,} of {count(trainable) + count(frozen):,} parameters train; "
        f"{steps} updates on {len(mesh.devices.flat)} device(s)"
    )
    return Session(settings, mesh, words, model, examples, trainable, frozen, steps, record)


def check_packing(settings: SftSettings, config: DecoderConfig) -> None:
    """Refuses rows with a common opening where the model cannot let every document see it.

    Raises:
      InputError: the attention is a fused kernel, a window is shorter than a row, or the rope
        depends on the length of a document.
    """
    if settings.data.packing != "shared_prefix":
        return
    attention, row = settings.execution.attention, settings.data.row_length
    windows = [window for window in config.windows if window is not None]
    plain = "config.data.packing='fewest_rows'"
    refused = "config.data.packing is 'shared_prefix', which"
    if attention not in ("xla", "chunked"):
        raise InputError(
            f"{refused} config.execution.attention={attention!r} cannot mask; give 'xla' or "
            f"'chunked' there, or {plain}"
        )
    if windows and min(windows) < row:
        raise InputError(
            f"{refused} needs layers that see a whole row; {config.family} has a window of "
            f"{min(windows)} and config.data.row_length is {row}; give {plain}, or rows of "
            f"{min(windows)} at most"
        )
    if isinstance(config.rope_scaling, LongRope):
        raise InputError(
            f"{refused} needs positions that mean the same in every document; the LongRoPE of "
            f"this {config.family} depends on a document's length; give {plain}"
        )


def fit(session: Session, workdir: Path) -> State:
    """Runs the updates that are left, from the newest checkpoint if there is one."""
    settings = session.settings
    run = training(settings, session.model.graphdef, session.steps, bounds(session))
    state = initial_state(session.trainable, run.optimizer, settings.seed, session.mesh)
    share = row_share(session.mesh)
    shards = {"process_index": share.index, "process_count": share.count}
    put = to_devices(session.mesh)
    saved, keep = workdir / "checkpoints", settings.loop.keep_checkpoints
    with closing(Checkpoints(saved, keep)) as checkpoints:
        start = checkpoints.latest() or 0
        with closing(MetricLog(workdir, start, session.steps)) as log:
            loop = Run(
                step=placed(run.step, state),
                evaluate=evaluator(
                    run.loss,
                    session.frozen,
                    put,
                    partial(eval_batches, session.examples.valid, settings.data, **shards),
                ),
                put=put,
                schedule=run.schedule,
                batches=train_batches(session.examples.train, settings.data, **shards),
                checkpoints=checkpoints,
                log=log,
                record=session.record,
                records=partial(train_records, session.examples.train, settings.data),
                shares=share.count,
                flops=lambda number: update_flops(settings, session.model.config),
            )
            state = resume(loop, state)
            return train(settings.loop, loop, state, session.frozen, session.steps)


def training(
    settings: SftSettings, graphdef: nnx.GraphDef, steps: int, bounds: RowBounds
) -> Training:
    """The loss, the optimizer and the step of a run of `steps` updates; also what a plan compiles.

    `bounds` hold for every row.
    """
    schedule = make_schedule(settings.optimizer, steps)
    optimizer = guard(make_optimizer(settings.optimizer, schedule), settings.guard)
    loss = sft_loss(graphdef, bounds.trained, settings.logit_chunk, bounds.reach)
    step = reporting(update_step(loss, optimizer, settings.microbatches))
    return Training(loss, optimizer, schedule, step)


def update_flops(settings: SftSettings, config: DecoderConfig) -> float:
    """The model's operations in one update; every position of a row is taken to train."""
    rows, length = settings.data.batch_size, settings.data.row_length
    return training_flops(config, settings.adapter, Rows(rows, length, length))


def bounds(session: Session) -> RowBounds:
    """What no row of the run exceeds, the held-out rows included."""
    return widest(row_bounds(part, session.settings.data) for part in session.examples)

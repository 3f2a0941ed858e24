"""What a stage is: the seam between one way to train and what every run has.

A stage is one file: settings of its own, its data, its step. `runs.train` does the rest.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from hen_jax.adapters.experts import joint_lora
from hen_jax.core.mesh import MeshConfig
from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.core.types import Mean, Tree
from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
from hen_jax.planning.search import Change
from hen_jax.runs.model import BaseModel, ModelSettings, base_dtype, language_model
from hen_jax.runs.sources import Source
from hen_jax.sampling.slots import Slots
from hen_jax.steps.state import Optimizer, State
from hen_jax.steps.update import Metrics
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.guards import GuardConfig, guard
from hen_jax.training.loop import BatchSource, Evaluator, LoopConfig, Prepare, no_bounds
from hen_jax.training.optimizers import OptimizerConfig, Schedule, make_optimizer
from hen_jax.training.placement import InitMemory, no_memory, to_devices
from hen_jax.training.processes import Share
from hen_jax.training.red_flags import Flags, no_flags


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every run has; the settings of a stage extend it by fields of their own.

    One record and not two: a config is one flat group of fields, and so is the run's record.
    """

    recipe: str  # a name of `recipes.table.STAGES`
    model: ModelSettings
    sources: tuple[Source, ...]  # data files
    optimizer: OptimizerConfig
    adapter: LoraConfig | None = None  # None: all parameters train
    start: str | None = None  # the folder of a run to start from, such as an SFT run
    execution: Execution = Execution()
    loop: LoopConfig = LoopConfig()
    guard: GuardConfig = GuardConfig()
    mesh: MeshConfig = MeshConfig()
    microbatches: Count = 1  # parts of a batch, one after another: less memory, the same update
    logit_chunk: Count = 64  # positions per row that meet the vocabulary at a time
    seed: Natural = 0  # of what starts at random, and of the order of the data

    def __post_init__(self):
        check_ranges(self)
        base_dtype(self.model, self.adapter)


_Score = Callable[[Tree, Tree, Any], tuple[Mean, Metrics]]
"""`score(params, frozen, batch)`: a loss, but of any batch."""


class Feed(NamedTuple):
    """The data, opened: numpy, and on the host only."""

    steps: int  # updates of the whole run
    bounds: Any  # sizes that no batch exceeds: the step is compiled for them
    batches: BatchSource  # endless, and knows its place
    held_out: Callable[[], Iterator[Any]]  # batches of one evaluation
    records: Callable[[int], Sequence[str]] = lambda number: ()  # ids in the n-th batch, from 0
    beyond: Callable[[Any], Sequence[str]] = no_bounds  # which rows of a batch exceed `bounds`


class Work(NamedTuple):
    """What is computed: pure functions, which a run jits and `hen plan` compiles."""

    step: Callable[[State, Tree, Any], tuple[State, Metrics]]
    optimizer: Optimizer  # from `guarded`
    schedule: Schedule  # learning rate by step, for the log
    score: _Score  # what an evaluation sums over the held-out batches
    memory: InitMemory = no_memory


class Load(NamedTuple):
    """What a plan compiles the step for: shapes and shardings only."""

    batch: Tree  # of jax.ShapeDtypeStruct with shardings
    bounds: Any  # as in `Feed`


class Job(NamedTuple):
    """A run with everything in memory, before its first update; `fit` takes `trainable` over."""

    stage: "Stage"
    settings: Any  # of the stage
    workdir: Path
    mesh: Mesh
    tokenizer: ChatTokenizer
    model: BaseModel
    feed: Feed
    trainable: Tree
    frozen: Tree
    record: dict[str, Any]


def rows_to_devices(job: Job) -> Prepare:
    """The rows of a batch spread over the mesh: all that most stages do before a step."""
    put = to_devices(job.mesh)
    return lambda state, frozen, batch: put(batch)


def nothing_more(settings: Any, config: DecoderConfig, key: PRNGKeyArray) -> dict[str, Tree]:
    """Nothing trains but the decoder's own parameters."""
    return {}


class Stage(NamedTuple):
    """One way to train. The fields without a default are what every stage must say.

    `settings` below is a record of that type. `params` is what trains, `frozen` what does not.
    """

    settings: type[RunSettings]
    feed: Callable[[Any, ChatTokenizer, Share], Feed]
    """`(settings, tokenizer, share)`: reads the data; a process loads its share of the rows."""

    work: Callable[[Any, DecoderConfig, nnx.GraphDef, Any, int], Work]
    """`(settings, config, graphdef, bounds, steps)`; `bounds` are those of the feed or the load."""

    load: Callable[[Any, DecoderConfig, Mesh], Load]
    flops: Callable[[Any, DecoderConfig, int], float]
    """`(settings, config, number)`: what the model needs for the n-th step, from 0, on all chips
    together; -1 is the last."""

    summary: Callable[[Any], str]
    """`(settings)`: how it was trained, for the model card; goes on "LoRA trained by ..."."""

    prepare: Callable[[Job], Prepare] = rows_to_devices
    """From the host's batch to the step's; a rollout belongs here."""

    kept: Callable[[Any, Tree, Tree], Tree] = lambda settings, params, frozen: frozen
    """`(settings, params, frozen) -> frozen` at the start: a reference policy is `params` kept. It
    only arranges leaves, so that a plan can call it; whatever is in both is copied by the run.
    `params` are the decoder's own, without `extra`."""

    model_config: Callable[[Any, DecoderConfig], DecoderConfig] = lambda settings, config: (
        language_model(config)
    )
    """`(settings, config)`: the model that trains, from that of the base's folder. A reward model's
    has a score head, which then is a parameter of the decoder like others, and trains beside an
    adapter."""

    adapters: Callable[[Any], Mapping[str, LoraConfig]] | None = None
    """`(settings)`: adapters that train side by side, by name, in place of `config.adapter`:
    `params` is then `{name: adapter}`, and the decoder has room for all (`joint_lora`). None at
    all, `{}`: the decoder stays as it is, and `extra` is all that trains."""

    extra: Callable[[Any, DecoderConfig, PRNGKeyArray], dict[str, Tree]] = nothing_more
    """`(settings, config, key)`: what trains beside the decoder's own parameters, such as a score
    head: more keys of `params`, whole on every device."""

    check: Callable[[Any, Mesh], None] = lambda settings, mesh: None
    """`(settings, mesh)`: raises `InputError` for what is wrong whatever the model is."""

    check_model: Callable[[Any, DecoderConfig], None] = lambda settings, config: None
    """`(settings, config)`: raises `InputError` for what this model cannot do."""

    first: Callable[[Job, Mapping[str, float]], None] = lambda job, values: None
    """`(job, values)`: sees the held-out loss and metrics before the first update, and raises
    `InputError` for what must not train."""

    before: Callable[[Job], None] = lambda job: None
    after: Callable[[Job], None] = lambda job: None
    """What else a run does, before the first update and after the last."""

    evaluators: Mapping[str, Callable[[Job], Evaluator]] = {}
    """More names for `config.loop.evaluators`, beside those of `runs.evaluators`."""

    speaks: bool = True
    """Whether what trains answers as one model: else those of `runs.evaluators` are refused."""

    slots: Callable[[Any, Any], Slots] | None = None
    """`(settings, bounds)`: what the engine draws the stage's replies with; None: it draws none."""

    changes: tuple[Change, ...] = ()
    """What `hen plan` may try besides the common ones to make a step fit."""

    flags: Callable[[Any], Flags] = lambda settings: no_flags
    """`(settings)`: what the loop asks about each update's metrics; may warn or end the run."""

    rows: Callable[[Any], int] | None = None
    """`(settings)`: rows of a batch, which microbatches divide; None where there are none."""

    headline: str = "loss"
    """The metric that the progress bar shows, and an evaluation tells."""


def guarded(settings: RunSettings, schedule: Schedule) -> optax.GradientTransformation:
    """The optimizer of a run, with its guard: that of `Work`."""
    return guard(make_optimizer(settings.optimizer, schedule), settings.guard)


def decoder_lora(stage: Stage, settings: RunSettings) -> LoraConfig | None:
    """The adapter that the decoder is built with."""
    if stage.adapters is None:
        return settings.adapter
    adapters = stage.adapters(settings)
    return joint_lora(adapters) if adapters else None


def beginning(
    stage: Stage, settings: Any, params: Tree, frozen: Tree, extra: dict[str, Tree]
) -> tuple[Tree, Tree]:
    """What trains and what does not when the first update begins; leaves may be abstract."""
    return {**params, **extra}, stage.kept(settings, params, frozen)

"""A router: which expert a conversation is for, by a linear head on the frozen base.

The base runs once over each conversation; what trains is a softmax regression on the vectors that
it makes, all of them in every update.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from hen_jax.adapters.router import usual_layer
from hen_jax.core.errors import InputError
from hen_jax.core.mesh import replicated
from hen_jax.core.ranges import Count, NotNegative, UpToOne
from hen_jax.core.types import Tree
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.router_report import routing
from hen_jax.recipes.router_vectors import Conversations, raw_vectors, scale_of
from hen_jax.runs.rated import Folds
from hen_jax.runs.routed import PartName, RoutedPart, RouteTo, routed_parts
from hen_jax.runs.routing import RouterReading
from hen_jax.runs.sources import Source
from hen_jax.runs.stage import Feed, Job, Load, RunSettings, Stage, Work, guarded
from hen_jax.steps.router import Routed, router_head, router_loss
from hen_jax.steps.state import State
from hen_jax.steps.update import update_step
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.loop import LoopConfig, Prepare
from hen_jax.training.optimizers import make_schedule
from hen_jax.training.processes import Share

PLANNED = 1024
"""Conversations that a plan counts with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterSettings(RunSettings):
    """Everything that decides what a router becomes; each expert has conversations of its own."""

    routes: tuple[RouteTo, ...]  # the experts, two at least
    sources: tuple[Source, ...] = ()  # none here: each expert has its own
    unknown: tuple[Source, ...] = ()  # conversations of no expert, to measure by; none trains
    reading: RouterReading = RouterReading()
    folds: Folds = Folds(count=5)  # the held one tests, the next calibrates
    updates: Count = 300  # each of all conversations
    ridge: NotNegative = 1e-2  # times half the squared kernel, beside the mean cross-entropy
    keep: UpToOne = 0.95  # of the calibrating ones are routed
    loop: LoopConfig = LoopConfig(evaluators=("routing",), checkpoint_every=1000)

    def __post_init__(self):
        super().__post_init__()
        names = [route.name for route in self.routes]
        if len(names) < 2 or len(set(names)) < len(names):
            raise InputError(f"config.routes are {names}; give two or more, each its own name")
        if self.sources or self.adapter is not None or self.start is not None:
            raise InputError(
                "a router leaves the model as it is: leave config.sources, config.adapter and "
                "config.start out, and give config.routes"
            )
        if self.folds.count < 3:
            raise InputError("config.folds.count: allowed: 3 or more; one tests, one calibrates")
        if self.microbatches != 1:
            raise InputError("config.microbatches: allowed: 1; all conversations are one batch")

    def layer(self, config: DecoderConfig) -> int:
        """The layer that is read."""
        return self.reading.layer or usual_layer(config)

    def parts(self, tokenizer: ChatTokenizer) -> dict[PartName, RoutedPart]:
        """Its conversations."""
        return routed_parts(self.routes, self.unknown, self.folds, self.reading, tokenizer)


class RouterBounds(NamedTuple):
    """How many experts there are."""

    experts: int


def feed(settings: RouterSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """All conversations that train, in every batch; those that calibrate are held out."""
    parts = settings.parts(tokenizer)
    sizes = ", ".join(f"{name} {one.whole.sum()}" for name, one in parts.items())
    print(f"conversations: {sizes}")

    def held_out() -> Iterator[RoutedPart]:
        yield parts["calibration"]

    return Feed(
        steps=settings.updates,
        bounds=RouterBounds(len(settings.routes)),
        batches=Conversations(parts),
        held_out=held_out,
        records=lambda number: parts["train"].groups,
    )


def _prepare(job: Job) -> Prepare:
    """The vectors of a part, made when first asked for, on the scale of those that train."""
    vectors, here = raw_vectors(job), replicated(job.mesh)
    made: dict[PartName, Routed] = {}

    def ready(state: State, frozen: Tree, batch: RoutedPart) -> Routed:
        if batch.part not in made:
            scaled = scale_of(vectors("train")).standard(vectors(batch.part))
            made[batch.part] = jax.device_put(Routed(scaled, batch.labels), here)
        return made[batch.part]

    return ready


def work(
    settings: RouterSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: RouterBounds,
    steps: int,
) -> Work:
    """Cross-entropy with a ridge; what is held out is scored without."""
    schedule = make_schedule(settings.optimizer, steps)
    optimizer = guarded(settings, schedule)
    step = update_step(router_loss(settings.ridge), optimizer)
    return Work(step, optimizer, schedule, router_loss(0.0))


def load(settings: RouterSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """The head's batch: the base is not part of the step."""
    here = replicated(mesh)
    features = jax.ShapeDtypeStruct((PLANNED, config.width), jnp.float32, sharding=here)
    labels = jax.ShapeDtypeStruct((PLANNED,), jnp.int32, sharding=here)
    return Load(Routed(features, labels), RouterBounds(len(settings.routes)))


def flops(settings: RouterSettings, config: DecoderConfig, number: int) -> float:
    """Of the head, forward and backward."""
    return 6.0 * PLANNED * config.width * len(settings.routes)


def _extra(settings: RouterSettings, config: DecoderConfig, key: PRNGKeyArray) -> dict[str, Tree]:
    """The head."""
    return router_head(key, config.width, len(settings.routes))


def check(settings: RouterSettings, mesh: Mesh) -> None:
    """Raises `InputError` among several processes."""
    if jax.process_count() > 1:
        raise InputError("a router is trained by one process; start one")


def _check_model(settings: RouterSettings, config: DecoderConfig) -> None:
    """Raises `InputError` for a layer that the model lacks."""
    if settings.reading.layer > config.layers:
        raise InputError(
            f"config.reading.layer is {settings.reading.layer}; the model has {config.layers}"
        )


STAGE = Stage(
    settings=RouterSettings,
    feed=feed,
    work=work,
    load=load,
    flops=flops,
    summary=lambda one: f"a router to {len(one.routes)} experts on the frozen base,",
    prepare=_prepare,
    adapters=lambda settings: {},
    extra=_extra,
    check=check,
    check_model=_check_model,
    speaks=False,
    evaluators={"routing": routing},
)

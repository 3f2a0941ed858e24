"""A router: which expert a conversation is for, by a linear head on the frozen base.

The base runs once over each conversation; what trains is a softmax regression on the vectors that
it makes, all of them in every update.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from hen_jax.core.mesh import replicated
from hen_jax.core.types import Tree
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.router_report import routing
from hen_jax.recipes.router_settings import RouterSettings, check, check_model
from hen_jax.recipes.router_vectors import Conversations, raw_vectors, scale_of
from hen_jax.runs.routed import PartName, RoutedPart
from hen_jax.runs.stage import Feed, Job, Load, Stage, Work, guarded
from hen_jax.steps.router import Routed, router_head, router_loss
from hen_jax.steps.state import State
from hen_jax.steps.update import update_step
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.loop import Prepare
from hen_jax.training.optimizers import make_schedule
from hen_jax.training.processes import Share

PLANNED = 1024
"""Conversations that a plan counts with."""


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
    check_model=check_model,
    speaks=False,
    evaluators={"routing": routing},
)

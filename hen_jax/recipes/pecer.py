"""PECER: replies behind a soft prefix fused from history, personality and emotional reactions.

What trains is the prefix's fusion, beside the adapter or the whole model. Left out: replies of the
engine, which has no place for a soft prefix yet, so that what is told is the held-out loss.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH
from hen_jax.core.rows import check_batch
from hen_jax.core.types import Tree
from hen_jax.data.featured import (
    FeaturedBatch,
)
from hen_jax.models.config import DecoderConfig
from hen_jax.models.soft_prefix import SoftPrefix
from hen_jax.planning.model_flops import row_flops
from hen_jax.recipes.changes import NARROW
from hen_jax.recipes.pecer_data import Bounds, PecerSettings, feed
from hen_jax.runs.abstract import abstract_batch
from hen_jax.runs.packed import packed_rows
from hen_jax.runs.stage import Load, Stage, Work, guarded
from hen_jax.steps.pecer import PREFIX_PARAMS, pecer_loss
from hen_jax.steps.update import update_step
from hen_jax.training.optimizers import make_schedule


def work(
    settings: PecerSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: Bounds,
    steps: int,
) -> Work:
    """Cross-entropy of the last reply, one update a batch."""
    schedule = make_schedule(settings.optimizer, steps)
    optimizer = guarded(settings, schedule)
    made = jax.eval_shape(lambda: _prefix(settings, config, jax.random.key(0)))
    loss = pecer_loss(graphdef, nnx.split(made)[0], settings.logit_chunk)
    return Work(update_step(loss, optimizer, settings.microbatches), optimizer, schedule, loss)


def _extra(settings: PecerSettings, config: DecoderConfig, key: PRNGKeyArray) -> dict[str, Tree]:
    """The parameters of the prefix."""
    state = nnx.split(_prefix(settings, config, key))[1]
    return {PREFIX_PARAMS: nnx.to_pure_dict(state)}


def load(settings: PecerSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Full rows, every position of which is taken to train."""
    data, where = settings.data, NamedSharding(mesh, PartitionSpec(BATCH))
    known = [
        jax.ShapeDtypeStruct((data.batch_size, size), jnp.float32, sharding=where)
        for size in (settings.traits, settings.reactions)
    ]
    batch = FeaturedBatch(
        abstract_batch((data.batch_size,), data.row_length, mesh, (BATCH,)), *known
    )
    return Load(batch, Bounds(data.row_length))


def flops(settings: PecerSettings, config: DecoderConfig, number: int) -> float:
    """The model's operations in one update; those of the prefix do not count."""
    data = settings.data
    return data.batch_size * row_flops(config, settings.adapter, data.row_length)


def check(settings: PecerSettings, mesh: Mesh) -> None:
    """Raises `InputError` for a batch that does not divide, or rows too short for the prefix."""
    check_batch(settings.data.batch_size, settings.microbatches, mesh)
    if settings.prefix.length >= settings.data.row_length:
        raise InputError(
            f"config.prefix.length is {settings.prefix.length}, of rows of "
            f"config.data.row_length {settings.data.row_length}; make it shorter"
        )


def _prefix(settings: PecerSettings, config: DecoderConfig, key: PRNGKeyArray) -> SoftPrefix:
    return SoftPrefix(key, settings.prefix, config.width, settings.traits, settings.reactions)


STAGE = Stage(
    settings=PecerSettings,
    feed=feed,
    work=work,
    load=load,
    flops=flops,
    summary=lambda one: f"PECER ({', '.join(one.prefix.sources)}; {one.epochs:g} epochs),",
    check=check,
    extra=_extra,
    rows=packed_rows,
    speaks=False,
    changes=(NARROW,),
)

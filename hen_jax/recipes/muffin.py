"""Muffin: a model trained on which of its own candidates are helpful, beside the given replies.

Left out: the published schedule (inverse square root of the step) and the generators that it was
applied to; any schedule of `config.optimizer` and any decoder.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.core.mesh import BATCH
from hen_jax.data.preference_batches import (
    PreferenceBatch,
    PreferenceBounds,
    Weighed,
    WeighedBounds,
)
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.changes import NARROW
from hen_jax.recipes.muffin_data import MuffinSettings, feed
from hen_jax.runs.abstract import abstract_batch
from hen_jax.runs.packed import check_rows, check_shared_prompts, packed_flops, packed_rows
from hen_jax.runs.stage import Load, Stage, Work, guarded
from hen_jax.steps.muffin import muffin_loss
from hen_jax.steps.update import update_step
from hen_jax.training.optimizers import make_schedule


def work(
    settings: MuffinSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: PreferenceBounds,
    steps: int,
) -> Work:
    """The margin and the cross-entropy, one update a batch."""
    schedule = make_schedule(settings.optimizer, steps)
    optimizer = guarded(settings, schedule)
    loss = muffin_loss(graphdef, bounds.rows, settings.muffin, settings.logit_chunk)
    return Work(update_step(loss, optimizer, settings.microbatches), optimizer, schedule, loss)


def load(settings: MuffinSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Rows without padding, of three replies each, every position of which is taken to train."""
    data, where = settings.data, NamedSharding(mesh, PartitionSpec(BATCH))
    B, K, T = data.batch_size, 3, data.row_length

    def leaf(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    rows = Weighed(abstract_batch((B,), T, mesh, (BATCH,)), leaf(B, T))
    batch = PreferenceBatch(rows, leaf(B, K, K), leaf(B, K, 2), leaf(B, dtype=jnp.int32))
    return Load(batch, PreferenceBounds(WeighedBounds(T, K, T)))


STAGE = Stage(
    settings=MuffinSettings,
    feed=feed,
    work=work,
    load=load,
    flops=packed_flops,
    summary=lambda one: f"Muffin (margin {one.muffin.margin:g}, {one.epochs:g} epochs),",
    check=check_rows,
    check_model=check_shared_prompts,
    rows=packed_rows,
    changes=(NARROW,),
)

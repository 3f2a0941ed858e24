"""The program that draws tokens, for shapes and shardings alone: a plan of decoding."""

import dataclasses
import math
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from hen_jax.adapters.experts import joint_lora
from hen_jax.core.errors import InputError
from hen_jax.core.mesh import Layout, replicated, rows_over
from hen_jax.core.types import Tree
from hen_jax.models.config import DecoderConfig
from hen_jax.models.decoder import merge
from hen_jax.planning.model_flops import decoding_flops
from hen_jax.planning.stage import Program
from hen_jax.planning.topologies import Topology
from hen_jax.runs.abstract import Placed, placed_model
from hen_jax.runs.stage import Stage
from hen_jax.sampling.drawing import step_drawing
from hen_jax.sampling.slots import DecodeState, Slots, init_slots, state_shardings
from hen_jax.sampling.weights import Weights, lay_out

Decoding = Literal["decode", "rollout"]
DECODING: tuple[Decoding, ...] = get_args(Decoding)

_PLACES = 4096
"""Tokens of a row of "decode", where the model was trained for as many."""

CACHE_SHARE = 1 / 3
"""Of a chip's memory, which the cache of "decode" may take: it has as many rows as fit in that."""


class CacheRoom(NamedTuple):
    """What "decode" is asked to hold; None: as `CACHE_SHARE` says, and the compute dtype."""

    rows: int | None = None  # replies at a time, on all chips together
    places: int | None = None  # tokens of each
    cache_dtype: str | None = None  # of keys and values


def decoding_program(
    kind: Decoding, stage: Stage, settings: Any, topology: Topology, room: CacheRoom = CacheRoom()
) -> Program:
    """A chunk of drawing for all rows; its figures are those of one step.

    How often the loop of a chunk runs depends on the rows, so that a plan counts it once; what
    stands outside, the chunk's keys put into the cache, is counted with that one step.

    "decode" is the model of a config in its compute dtype, its adapter beside it, as it answers
    (of experts all adapters, each row choosing among their columns);
    "rollout" what the stage draws its replies with between two updates: parameters in the dtypes
    that training holds them in, and the stage's own slots. Moments and gradients that wait
    meanwhile are not counted: see the plan of the stage itself.

    Raises:
      InputError: a rollout of a stage that has none, room that no row has, or what the run would
        refuse.
    """
    several = None if stage.adapters is None else stage.adapters(settings)
    if several:
        settings = dataclasses.replace(settings, adapter=joint_lora(several))
    model = placed_model(settings, topology, partial(stage.model_config, settings))
    stage.check(settings, model.mesh)
    slots = _slots(kind, stage, settings, model, topology.chip.hbm, room)
    if several:
        slots = dataclasses.replace(slots, columns=settings.adapter.rank)
    trees = model.trainable, model.frozen
    if kind == "decode":
        trees = jax.tree.map(partial(_cast, dtype=settings.execution.compute_dtype), trees)

    def weights(*trees: Tree) -> Weights:
        return lay_out(merge(model.graphdef, *trees), unroll_layers=False)

    def draw(trees: tuple[Tree, Tree], state: DecodeState, ended: jax.Array) -> Any:
        return step_drawing(weights(*trees), state, slots, ended)

    shapes = jax.eval_shape(lambda *trees: init_slots(weights(*trees), slots), *trees)
    where = state_shardings(shapes, Layout(model.mesh, settings.mesh.rules))
    state = jax.tree.map(
        lambda leaf, home: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=home),
        shapes,
        where,
    )
    one = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(model.mesh))
    return Program(
        step=jax.jit(draw, donate_argnums=1, out_shardings=(where, None)),
        arguments=(trees, state, one),
        model_flops=decoding_flops(model.config, settings.adapter, slots.rows, slots.places),
        tokens=slots.rows,
        kernel_flops=lambda name, sizes: 0.0,
    )


def _slots(
    kind: Decoding, stage: Stage, settings: Any, model: Placed, memory: int, room: CacheRoom
) -> Slots:
    """Those of the stage, or of an engine that answers."""
    if kind == "decode":
        places = room.places or min(_PLACES, model.config.max_length)
        if places > model.config.max_length:
            raise InputError(
                f"--places={places}: the model has {model.config.max_length} positions; give fewer"
            )
        size = jnp.dtype(room.cache_dtype or settings.execution.compute_dtype).itemsize * places
        own = cached_rows(model.config, size, model.mesh.shape["tensor"], memory)
        spread = rows_over(model.mesh)
        rows = room.rows or own * spread
        if rows % spread:
            raise InputError(f"--rows={rows} does not divide over {spread} chips; give a multiple")
        return Slots(rows, places, cache_dtype=room.cache_dtype)
    if stage.slots is None:
        raise InputError(f"--stage=rollout: the recipe {settings.recipe!r} draws no replies")
    return stage.slots(settings, stage.load(settings, model.config, model.mesh).bounds)


def cached_rows(config: DecoderConfig, size: int, parts: int, memory: int) -> int:
    """The largest power of two of rows whose caches take `CACHE_SHARE` of a chip's memory at most.

    `size` is that of one number at every place of a row, in bytes; `parts` divide the heads.
    """
    heads = config.kv_heads // parts if config.kv_heads % parts == 0 else config.kv_heads
    row = 2 * config.layers * heads * config.head_dim * size
    return 2 ** int(math.log2(max(1.0, CACHE_SHARE * memory / row)))


def _cast(leaf: jax.ShapeDtypeStruct, dtype: str) -> jax.ShapeDtypeStruct:
    if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.ndim < 2:
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)

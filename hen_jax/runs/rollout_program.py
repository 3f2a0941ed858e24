"""The program that draws the tokens of a rollout, for shapes and shardings alone: for a plan."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hen_jax.core.mesh import Layout, replicated
from hen_jax.core.types import Array, Tree
from hen_jax.models.decoder import merge
from hen_jax.planning.model_flops import RowShape, scoring_flops
from hen_jax.planning.stage import Program
from hen_jax.runs.abstract import Placed
from hen_jax.runs.stage import RunSettings
from hen_jax.sampling import slots as programs
from hen_jax.sampling.slots import Chunk, Slots, State
from hen_jax.sampling.weights import Weights, lay_out


def drawing_program(settings: RunSettings, placed: Placed, slots: Slots) -> Program:
    """One chunk of tokens for every slot, as the engine of a rollout jits it.

    The cache is full-length in every slot, so the memory is the most that a rollout takes. Layers
    are scanned, as on any accelerator.
    """
    from hen_jax.models.fused_attention import kernel_flops  # with Pallas it takes a while

    def weights(params: Tree, base: Tree) -> Weights:
        return lay_out(merge(placed.graphdef, params, base), unroll_layers=False)

    def draw(params: Tree, base: Tree, state: State, ended: Array) -> tuple[State, Chunk]:
        return programs.step(weights(params, base), state, slots, ended)

    shapes = jax.eval_shape(weights, placed.trainable, placed.frozen)
    state = _placed_state(shapes, slots, Layout(placed.mesh, settings.mesh.rules))
    ended = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(placed.mesh))
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    tokens = slots.rows * slots.chunk
    return Program(
        step=jax.jit(draw, donate_argnums=2, out_shardings=(where, None)),
        arguments=(placed.trainable, placed.frozen, state, ended),
        model_flops=scoring_flops(placed.config, settings.adapter, RowShape(tokens, 1, 1)),
        tokens=tokens,
        kernel_flops=partial(kernel_flops, placed.config.windows),
    )


def _placed_state(weights: Any, slots: Slots, layout: Layout) -> State:
    shapes = jax.eval_shape(partial(programs.init_state, slots=slots), weights)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        programs.state_shardings(shapes, layout),
    )

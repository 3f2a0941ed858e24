"""What a training step changes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int, PRNGKeyArray

from hen_jax.core.types import Array, Tree
from hen_jax.steps.rounding import widened


class State(NamedTuple):
    """Everything a step reads and writes; donated to it, and saved in checkpoints."""

    params: Tree  # what trains: the adapter, or the whole model
    opt_state: optax.OptState
    step: Int[Array, ""]  # updates done
    key: PRNGKeyArray
    memory: Tree = ()  # what a stage carries besides: a curriculum, a running mean; () for nothing


def init_state(
    params: Tree, optimizer: optax.GradientTransformation, seed: int, memory: Tree = ()
) -> State:
    """The state before the first update; moments of bfloat16 parameters are float32."""
    step, key = jnp.zeros((), jnp.int32), jax.random.key(seed)
    return State(params, optimizer.init(widened(params)), step, key, memory)

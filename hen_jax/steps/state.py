"""What a training step changes."""

from collections.abc import Mapping
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
    opt_state: optax.OptState  # of each part by name, where parts have optimizers of their own
    step: Int[Array, ""]  # updates done
    key: PRNGKeyArray
    memory: Tree = ()  # what a stage carries besides: a curriculum, a running mean; () for nothing


Optimizer = optax.GradientTransformation | Mapping[str, optax.GradientTransformation]
"""One of all parameters, or one of each part of them by its name, as experts have."""


def init_state(params: Tree, optimizer: Optimizer, seed: int, memory: Tree = ()) -> State:
    """The state before the first update; moments of bfloat16 parameters are float32."""
    step, key = jnp.zeros((), jnp.int32), jax.random.key(seed)
    if isinstance(optimizer, Mapping):
        moments = {name: one.init(widened(params[name])) for name, one in optimizer.items()}
    else:
        moments = optimizer.init(widened(params))
    return State(params, moments, step, key, memory)

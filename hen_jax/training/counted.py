"""How many tokens a step took."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hen_jax.core.types import Batch, Mean, Tree
from hen_jax.steps.state import State
from hen_jax.steps.update import Metrics

TOKENS = "tokens"
"""The metric of a step that says how many tokens its batch holds, over all processes."""


def counting(plain: Callable[[State, Tree, Any], tuple[State, Metrics]]) -> Callable:
    """The step with the metric `TOKENS`: what stands in the batch, or in all of a tree of them.

    The step counts and not the host: only the step sees a batch that was made of replies.
    """

    def step(state: State, frozen: Tree, batch: Tree) -> tuple[State, Metrics]:
        state, metrics = plain(state, frozen, batch)
        tokens = sum((one.segments != 0).sum(dtype=jnp.float32) for one in batches_in(batch))
        return state, metrics | {TOKENS: Mean(jnp.float32(tokens), jnp.ones((), jnp.float32))}

    step.__name__ = plain.__name__  # by which its compilations are told from others
    return step


def batches_in(tree: Tree) -> list[Batch]:
    """Each `Batch` of a tree that may hold other arrays beside them."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Batch))
    return [node for node in nodes if isinstance(node, Batch)]

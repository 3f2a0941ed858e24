"""The loss over held-out batches."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from hen_jax.core.types import Mean, Tree
from hen_jax.steps.state import State
from hen_jax.steps.update import Metrics
from hen_jax.training.loop import Evaluator, Prepare
from hen_jax.training.metrics import fetch_metrics


def evaluator(
    loss: Callable[[Tree, Tree, Any], tuple[Mean, Metrics]],
    frozen: Tree,
    prepare: Prepare,
    batches: Callable[[], Iterator[Any]],
) -> Evaluator:
    """A function from a state to the loss and metrics over all of `batches()`."""

    def score(params: Tree, frozen: Tree, batch: Tree) -> Metrics:
        mean, metrics = loss(params, frozen, batch)
        return metrics | {"loss": mean}

    jitted = jax.jit(score)

    def evaluate(state: State) -> dict[str, float]:
        sums: Metrics | None = None
        for batch in batches():
            part = jitted(state.params, frozen, prepare(state, frozen, batch))
            sums = part if sums is None else jax.tree.map(jnp.add, sums, part)
        return fetch_metrics(sums) if sums is not None else {}

    return evaluate

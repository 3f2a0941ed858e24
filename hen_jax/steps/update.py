"""From a loss to a step: accumulate over microbatches, divide once, update."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hen_jax.core.types import Mean, Tree
from hen_jax.steps.state import State

Metrics = dict[str, Mean]
Loss = Callable[[Tree, Tree, Any], tuple[Mean, Metrics]]
"""`loss(params, frozen, batch) -> Mean(total, count), {name: Mean}`, of any tree of rows."""

Step = Callable[[State, Tree, Any], tuple[State, Metrics]]


def update_step(loss: Loss, optimizer: optax.GradientTransformation, microbatches: int = 1) -> Step:
    """A pure step: the gradient of `sum(total) / sum(count)` over all microbatches, one update.

    `microbatches` must divide the batch's rows. Rows are dealt out like cards, so that each
    microbatch spans all devices that hold rows.
    """

    def step(state: State, frozen: Tree, batch: Tree) -> tuple[State, Metrics]:
        grads, mean, metrics = summed_gradients(loss, state.params, frozen, batch, microbatches)
        grads = jax.tree.map(lambda g: g / jnp.maximum(mean.count, 1).astype(g.dtype), grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        one = jnp.ones((), jnp.float32)
        metrics |= {"loss": mean, "grad_norm": Mean(optax.tree.norm(grads), one)}
        return State(params, opt_state, state.step + 1, state.key), metrics

    return step


def summed_gradients(
    loss: Loss, params: Tree, frozen: Tree, batch: Tree, microbatches: int
) -> tuple[Tree, Mean, Metrics]:
    """Gradient of the loss's total, the loss and the metrics, each summed over microbatches."""

    def total(params: Tree, part: Tree) -> tuple[jax.Array, tuple[Mean, Metrics]]:
        mean, metrics = loss(params, frozen, part)
        return mean.total, (mean, metrics)

    def one(part: Tree) -> tuple[Tree, Mean, Metrics]:
        grads, (mean, metrics) = jax.grad(total, has_aux=True)(params, part)
        return grads, mean, metrics

    if microbatches == 1:
        return one(batch)
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
    zeros = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype),
        jax.eval_shape(one, jax.tree.map(operator.itemgetter(0), parts)),
    )
    sums, _ = jax.lax.scan(
        lambda carry, part: (jax.tree.map(operator.add, carry, one(part)), None), zeros, parts
    )
    return sums

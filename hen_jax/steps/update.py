"""From a loss to a step: accumulate over microbatches, divide once, update."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hen_jax.core.types import Mean, Tree
from hen_jax.steps.rounding import apply_updates, widened
from hen_jax.steps.state import State

Metrics = dict[str, Mean]
Loss = Callable[[Tree, Tree, Any], tuple[Mean, Metrics]]
"""`loss(params, frozen, batch) -> Mean(total, count), {name: Mean}`, of any tree of rows."""

Step = Callable[[State, Tree, Any], tuple[State, Metrics]]


def update_step(loss: Loss, optimizer: optax.GradientTransformation, microbatches: int = 1) -> Step:
    """A pure step: the gradient of `sum(total) / sum(count)` over all microbatches, one update.

    `microbatches` must divide the batch's rows. Rows are dealt out like cards, so that each
    microbatch spans all devices that hold rows. A batch that counts nothing (all weights 0) has the
    gradient 0. Gradients are summed and updates computed in float32 whatever the dtype of the
    parameters; those in bfloat16 are rounded stochastically, keyed by `state.key` and `state.step`.
    """

    def step(state: State, frozen: Tree, batch: Tree) -> tuple[State, Metrics]:
        grads, mean, metrics = summed_gradients(loss, state.params, frozen, batch, microbatches)
        grads = jax.tree.map(lambda g: Mean(g, mean.count.astype(g.dtype)).value, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, widened(state.params))
        key = jax.random.fold_in(state.key, state.step)
        params = apply_updates(state.params, updates, key)
        one = jnp.ones((), jnp.float32)
        metrics |= {"loss": mean, "grad_norm": Mean(optax.tree.norm(grads), one)}
        return state._replace(params=params, opt_state=opt_state, step=state.step + 1), metrics

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
        return widened(grads), mean, metrics

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

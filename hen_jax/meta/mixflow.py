"""A gradient whose own gradient is forward over reverse: MixFlow-MG, arXiv 2505.00793.

An inner training step uses `g = d loss / d theta`. To differentiate a training run, its backward
pass needs `u . dg/dtheta` and `u . dg/deta` for a cotangent `u`. Reverse over reverse keeps the
activations of a backward pass; but both products are also the directional derivative of the
gradient with respect to (theta, eta) along (u, 0), because second derivatives commute:

    u . d(dL/dtheta)/dtheta = d/de dL/dtheta (theta + e u, eta)     at e = 0
    u . d(dL/dtheta)/deta   = d/de dL/deta   (theta + e u, eta)     at e = 0

so one `jax.jvp` of one gradient gives both, with the memory of about one gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hen_jax.core.types import Array, Tree


def mixed_value_and_grad(loss: Callable[..., Array]) -> Callable[..., tuple[Array, Tree]]:
    """`jax.value_and_grad(loss)` whose own derivative is one `jvp` of one gradient, and exact.

    Every float array that `loss` reads gets its exact cotangent: the first argument, the others,
    and what the loss closes over. What nobody differentiates is dead code under `jit`. The loss
    must have a forward-mode rule: no fused attention kernel and no `jax.custom_vjp` inside. The
    result cannot itself be differentiated forward (`jax.jvp`, `jax.hessian`): use
    `jax.value_and_grad` for that.
    """

    def value_and_grad(theta: Tree, *inputs: Tree) -> tuple[Array, Tree]:
        pure, closed = jax.closure_convert(loss, theta, *inputs)
        leaves, treedef = jax.tree.flatten((*inputs, *closed))
        is_float = [jnp.issubdtype(jax.typeof(leaf).dtype, jnp.inexact) for leaf in leaves]

        def evaluate(theta: Tree, floats: list, others: list) -> Array:
            queues = {True: iter(floats), False: iter(others)}
            merged = [next(queues[floating]) for floating in is_float]
            return pure(theta, *jax.tree.unflatten(treedef, merged))

        floats = [leaf for leaf, floating in zip(leaves, is_float, strict=True) if floating]
        others = [leaf for leaf, floating in zip(leaves, is_float, strict=True) if not floating]
        return _with_mixed_derivative(evaluate)(theta, floats, others)

    return value_and_grad


def _with_mixed_derivative(evaluate: Callable[..., Array]) -> Callable[..., tuple[Array, Tree]]:
    @jax.custom_vjp
    def value_and_grad(theta: Tree, floats: list, others: list) -> tuple[Array, Tree]:
        return jax.value_and_grad(evaluate)(theta, floats, others)

    def forward(theta: Tree, floats: list, others: list):
        return value_and_grad(theta, floats, others), (theta, floats, others)

    def backward(saved: tuple, cotangent: tuple[Array, Tree]):
        theta, floats, others = saved
        of_value, of_gradient = cotangent
        gradients = jax.grad(evaluate, argnums=(0, 1))
        primal, tangent = jax.jvp(
            lambda at: gradients(at, floats, others), (theta,), (of_gradient,)
        )
        # The inner loss itself may be part of the outer objective; its gradient comes for free.
        theta_bar, floats_bar = jax.tree.map(lambda g, hu: of_value * g + hu, primal, tangent)
        return theta_bar, floats_bar, None

    value_and_grad.defvjp(forward, backward)
    return value_and_grad

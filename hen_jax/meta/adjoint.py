"""The derivative of an inner loop, written out: one saved gradient per step, states replayed.

Forward, for k = 0 .. K-1, with the loss L, the optimizer U and all that is constant in k as eta,

    g_k = dL/dtheta(theta_k, eta)        (theta, s)_k+1 = U(theta_k, s_k, g_k, eta)

keeps the start and every g_k. Backward, for k = K-1 .. 0,

    (theta, s)_k   from the last kept state, by U and the saved gradients: the loss is not evaluated
    u              the cotangent of g_k, from the vjp of U there
    theta_bar += u . dg_k/dtheta,    eta_bar += u . dg_k/deta       by one jvp (`mixflow`)

so that memory grows by one tree of gradients per step, whatever the optimizer keeps: automatic
differentiation of the same loop with Adam keeps two and a half. A state is kept once per block of
steps only. A backward step replays half a block on average, elementwise work that is nothing beside
the gradient of a language model.

With `keep`, a policy of `jax.checkpoint`, values that a step's gradient computed are kept beside
g_k, so that the jvp does not compute them again: with the products of linear layers kept, a
backward step computes tangents alone. With frozen kernels two steps and the query take 10 passes
over the model where they took 14, at the price of memory that grows by what is kept per step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hen_jax.core.types import Array, Tree
from hen_jax.meta.mixflow import (
    Policy,
    apply_linearised,
    drop_zeros,
    floating,
    linearised,
    merge_perturbed,
    pulled_back,
    split_perturbed,
)


class Loop(NamedTuple):
    """What a loop repeats, as pure functions of all they read."""

    loss: Callable[[Tree, Tree, Tree], Array]  # (theta, inputs, batch) -> scalar
    update: Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]]  # (theta, state, g, inputs)
    steps: int
    block: int  # steps between kept states
    offload: bool  # saved gradients live in pinned host memory
    curved: bool  # False: inner gradients are constants (first order)
    keep: Policy | None  # what is kept of each step's gradient, beside it


def differentiable(loop: Loop) -> Callable[..., tuple[Tree, Tree, Array]]:
    """`(theta, state, inputs, batches) -> (theta_K, state_K, losses [K])` with the adjoint above.

    `inputs` is the same at every step, `batches` has a leading axis of K. Cotangents are computed
    for those leaves only that are differentiated: frozen parameters cost nothing.
    """

    @jax.custom_vjp
    def run(theta: Tree, state: Tree, inputs: Tree, batches: Tree) -> tuple[Tree, Tree, Array]:
        def step(carry: tuple, batch: Tree) -> tuple[tuple, Array]:
            theta, state = carry
            value, gradient = jax.value_and_grad(loop.loss)(theta, inputs, batch)
            return loop.update(theta, state, gradient, inputs), value

        (theta, state), losses = jax.lax.scan(step, (theta, state), batches, length=loop.steps)
        return theta, state, losses

    def forward(*primals: Tree):
        theta, state, inputs = jax.tree.map(lambda primal: primal.value, primals[:3])
        reads = split_perturbed(primals[2:])
        end, losses, saved = _forward(loop, (theta, state), inputs, reads)
        return (*end, losses), ((theta, state), saved, reads)

    def backward(residuals: tuple, cotangents: tuple):
        start, saved, reads = residuals
        return _backward(loop, start, saved, reads, drop_zeros(cotangents))

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run


def _forward(loop: Loop, start: tuple, inputs: Tree, reads: tuple) -> tuple:
    """The end, the losses, and what the backward pass needs of each step."""
    (moving, moving_batches), (fixed, fixed_batches) = reads

    def step(carry: tuple, batch: tuple) -> tuple[tuple, tuple]:
        theta, state = carry
        loss = _loss_of_moving(loop, fixed, batch[1])
        if loop.keep is not None and loop.curved:
            reads = (moving, batch[0])
            value, gradient, kept = linearised(loss, theta, reads, inputs, loop.keep)
        else:
            value, gradient = jax.value_and_grad(loss)(theta, (moving, batch[0]))
            kept = None
        saved = jax.device_put(gradient, jax.memory.Space.Host) if loop.offload else gradient
        return loop.update(theta, state, gradient, inputs), (value, (saved, kept))

    batches = (moving_batches, fixed_batches)
    end, (losses, saved) = jax.lax.scan(step, start, batches, length=loop.steps)
    return end, losses, saved


def _loss_of_moving(loop: Loop, fixed: Tree, fixed_batch: Tree) -> Callable[[Tree, tuple], Array]:
    def loss(theta: Tree, moving: tuple) -> Array:
        return loop.loss(
            theta, merge_perturbed(moving[0], fixed), merge_perturbed(moving[1], fixed_batch)
        )

    return loss


def _backward(loop: Loop, start: tuple, saved: Tree, inputs: tuple, cotangents: tuple) -> tuple:
    (moving, moving_batches), (fixed, fixed_batches) = inputs
    theta_bar, state_bar, losses_bar = cotangents
    theta, state = start
    carry = (
        merge_perturbed(theta_bar, jax.tree.map(jnp.zeros_like, theta)),
        _like(state_bar, floating(state)[0]),
        jax.tree.map(jnp.zeros_like, moving),
    )
    given = merge_perturbed(moving, fixed)
    gradients, linear = saved
    before = _replay(loop, start, gradients, given)

    def step(carry: tuple, at: tuple) -> tuple[tuple, Tree]:
        k, loss_bar, moving_batch, fixed_batch, kept = at
        theta_bar, state_bar, moving_bar = carry
        theta, state = before(k)

        pull = _update_pull(loop, theta, state, _at(loop, gradients, k), moving, fixed)
        theta_bar, state_bar, u, through_update = pull((theta_bar, state_bar))
        if kept is None:
            loss = _loss_of_moving(loop, fixed, fixed_batch)
            through_loss = _through_loss(loop, loss, theta, (moving, moving_batch), loss_bar, u)
        else:
            through_loss = apply_linearised(kept, given, loss_bar, u)
        to_theta, (to_moving, batch_bar) = through_loss
        moving_bar = _sum(moving_bar, through_update, to_moving)
        return (_sum(theta_bar, to_theta), state_bar, moving_bar), batch_bar

    xs = (jnp.arange(loop.steps), losses_bar, moving_batches, fixed_batches, linear)
    cotangents, batches_bar = jax.lax.scan(step, carry, xs, reverse=True)
    return (*cotangents, batches_bar)


def _update_pull(
    loop: Loop, theta: Tree, state: Tree, gradient: Tree, moving: Tree, fixed: Tree
) -> Callable[[tuple], tuple]:
    """The vjp of U: from cotangents of (theta, s)_k+1 to those of (theta, s, g)_k and inputs."""
    floats, others = floating(state)

    def update(theta: Tree, floats: Tree, gradient: Tree, moving: Tree) -> tuple[Tree, Tree]:
        state = merge_perturbed(floats, others)
        theta, state = loop.update(theta, state, gradient, merge_perturbed(moving, fixed))
        return theta, floating(state)[0]

    return jax.vjp(update, theta, floats, gradient, moving)[1]


def _through_loss(
    loop: Loop, loss: Callable, theta: Tree, reads: tuple, of_value: Array | None, u: Tree
) -> tuple[Tree, Tree]:
    """Cotangents of `theta` and `reads` through the loss and, unless first order, its gradient."""
    if loop.curved:
        return pulled_back(loss, theta, reads, of_value, u)
    if of_value is None:
        return jax.tree.map(jnp.zeros_like, (theta, reads))
    gradient = jax.grad(loss, argnums=(0, 1))(theta, reads)
    return jax.tree.map(lambda leaf: of_value * leaf, gradient)


def _replay(loop: Loop, start: tuple, saved: Tree, inputs: Tree) -> Callable[[Array], tuple]:
    """`k -> (theta, state)` before step k, from the state kept at the head of its block."""

    def advanced(carry: tuple, first: Array, last: Array) -> tuple:
        def step(j: Array, carry: tuple) -> tuple:
            theta, state = carry
            return loop.update(theta, state, _at(loop, saved, j), inputs)

        return jax.lax.fori_loop(first, last, step, carry)

    if loop.steps <= loop.block:
        return lambda k: advanced(start, jnp.zeros_like(k), k)

    heads = jnp.arange(0, loop.steps, loop.block)
    ends = jnp.minimum(heads + loop.block, loop.steps)
    _, kept = jax.lax.scan(lambda at, ends: (advanced(at, *ends), at), start, (heads, ends))

    def before(k: Array) -> tuple:
        block = k // loop.block
        return advanced(jax.tree.map(lambda x: x[block], kept), block * loop.block, k)

    return before


def _at(loop: Loop, saved: Tree, k: Array) -> Tree:
    gradient = jax.tree.map(lambda x: x[k], saved)
    return jax.device_put(gradient, jax.memory.Space.Device) if loop.offload else gradient


def _like(cotangent: Tree, floats: Tree) -> Tree:
    """The cotangent of the float leaves, with zeros where it is not known."""

    def leaf(value: Array | None, bar: Array | None) -> Array | None:
        if value is None:
            return None
        return jnp.zeros_like(value) if bar is None else bar

    return jax.tree.map(leaf, floats, cotangent, is_leaf=lambda x: x is None)


def _sum(*trees: Tree) -> Tree:
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *trees)

"""A differentiable training loop: any optax update, scanned, with everything learnt an argument.

    inner = InnerLoop(loss, optax.sgd(0.1), steps=5)      # loss(theta, eta, batch) -> scalar
    trained = inner(theta, eta, batches)                  # batches: leading axis 5
    jax.grad(lambda eta: outer(inner(theta, eta, batches).theta))(eta)

`theta` is what the inner loop trains (all parameters, or an adapter). `eta` is any tree of floats
that shapes the training: example or task weights, curriculum scores, learning rates, the pull to
the start. Frozen parameters may be closed over by the loss: nothing is computed for them.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.ad_checkpoint import checkpoint_name

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree
from hen_jax.meta.guards import (
    require_full_precision,
    require_leading_axis,
    require_pinned_host,
    require_smooth,
)
from hen_jax.meta.mixflow import mixed_value_and_grad

Loss = Callable[[Tree, Tree, Tree], Array]
"""`loss(theta, eta, batch)`, a scalar."""

Optimizer = optax.GradientTransformation | Callable[[Tree], optax.GradientTransformation]
"""An optax transformation, or a function of `eta` that returns one."""

Rule = Literal["mixflow", "unroll", "first_order"]
"""How the inner gradient is differentiated: forward over reverse, in reverse, or not at all."""

INNER_GRADIENTS = "inner_grads"
"""The name under which checkpoint policies find the saved inner gradients."""


class Trained(NamedTuple):
    """The end of an inner loop."""

    theta: Tree
    state: Tree  # of the optimizer; pass it on to continue in a next window
    losses: Array  # [steps], before each update, without the pull to the start


@dataclasses.dataclass(frozen=True)
class InnerLoop:
    """`steps` updates of `theta`, differentiable in `theta` and `eta`.

    The backward pass keeps one gradient per step (by name, on the device or the host) and the
    parameters and optimizer state at each block of `block` steps; within a block these are
    replayed from the saved gradients, without evaluating the loss.

    Raises:
      InputError: a field is out of range; at the call, `theta` is not float32 or float64, the
        batches do not have `steps` entries, or the optimizer has no derivative at a zero gradient.
    """

    loss: Loss
    optimizer: Optimizer
    steps: int
    repeat: bool = False  # the same batch at each step: batches have no leading steps axis
    proximal: float | Callable[[Tree], Array] = 0.0  # lambda of lambda/2 |theta - start|^2
    block: int | None = None  # steps per block, divides steps; None: nearest to sqrt(steps)
    offload: bool = False  # keep the saved inner gradients in pinned host memory

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"InnerLoop.steps is {self.steps}; give at least 1")
        if self.block is not None and (self.block < 1 or self.steps % self.block):
            raise InputError(
                f"InnerLoop.block is {self.block}; give a divisor of steps = {self.steps}, or None"
            )

    def __call__(
        self,
        theta: Tree,
        eta: Tree,
        batches: Tree,
        state: Tree | None = None,
        *,
        rule: Rule = "mixflow",
        window: int | None = None,
    ) -> Trained:
        """Trains from `theta`.

        Args:
          theta: the start; `proximal` pulls back to it.
          eta: the outer variables, or None.
          batches: a tree with a leading axis of `steps`, or one batch when `repeat`.
          state: the optimizer state of an earlier window; None starts afresh.
          rule: how the inner gradients are differentiated.
          window: differentiate only the last `window` inner gradients and take earlier ones as
            constants; None is all, 0 is `first_order`.
        """
        window = self.steps if window is None else window
        if not 0 <= window <= self.steps:
            raise InputError(f"window is {window}; give 0 to steps = {self.steps}, or None")
        if not self.repeat:
            require_leading_axis(batches, self.steps)
        require_full_precision(theta)
        if rule != "first_order" and window:
            require_smooth(lambda eta: transformation(self, eta), theta, eta)
        if state is None:
            state = transformation(self, eta).init(theta)

        constant = self.steps - window
        early, late = (batches, batches) if self.repeat else _cut(batches, constant)
        carry, first = _scan(self, "first_order", theta, eta, (theta, state), early, constant)
        (trained, state), last = _scan(self, rule, theta, eta, carry, late, window)
        return Trained(trained, state, jnp.concatenate([first, last]))


def descend(rates: Tree) -> optax.GradientTransformation:
    """Gradient descent with a learning rate per tensor: `update = -rates * gradient`.

    `rates` has the structure of `theta`; a leaf is a scalar or broadcasts to its tensor. Learnt
    rates come from `eta`; `optax.chain` puts any preconditioner before them:

        optimizer = lambda eta: optax.chain(
            optax.scale_by_adam(eps_root=1e-8), descend(eta["rates"])
        )
    """
    return optax.stateless(
        lambda gradients, _: jax.tree.map(lambda rate, g: -rate * g, rates, gradients)
    )


def transformation(inner: InnerLoop, eta: Tree) -> optax.GradientTransformation:
    """The optax transformation of `inner`, at `eta`."""
    if isinstance(inner.optimizer, optax.GradientTransformation):
        return inner.optimizer
    return inner.optimizer(eta)


def pull(inner: InnerLoop, eta: Tree, theta: Tree, start: Tree) -> Tree:
    """The gradient of the proximal term, `lambda (theta - start)`."""
    strength = inner.proximal(eta) if callable(inner.proximal) else inner.proximal
    return jax.tree.map(lambda here, there: strength * (here - there), theta, start)


def _scan(
    inner: InnerLoop, rule: Rule, start: Tree, eta: Tree, carry: tuple, batches: Tree, steps: int
) -> tuple[tuple, Array]:
    if steps == 0:
        return carry, jnp.zeros((0,))
    step = _step(inner, rule, start, eta)
    body = (lambda carry, _: step(carry, batches)) if inner.repeat else step
    xs = None if inner.repeat else batches
    if rule != "mixflow":
        return jax.lax.scan(body, carry, xs, length=steps)

    block = inner.block if steps == inner.steps and inner.block else _nearest_to_root(steps)
    policy = _saving_policy(inner.offload)
    saved_step = jax.checkpoint(body, policy=policy, prevent_cse=False)
    if block == 1:
        return jax.lax.scan(saved_step, carry, xs, length=steps)

    def several(carry: tuple, xs: Tree) -> tuple[tuple, Array]:
        return jax.lax.scan(saved_step, carry, xs, length=block)

    blocks = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), xs)
    saved_block = jax.checkpoint(several, policy=policy, prevent_cse=False)
    carry, losses = jax.lax.scan(saved_block, carry, blocks, length=steps // block)
    return carry, losses.reshape(steps)


def _step(inner: InnerLoop, rule: Rule, start: Tree, eta: Tree) -> Callable:
    transform = transformation(inner, eta)
    make = mixed_value_and_grad if rule == "mixflow" else jax.value_and_grad
    value_and_grad = make(inner.loss)

    def step(carry: tuple, batch: Tree) -> tuple[tuple, Array]:
        theta, state = carry
        value, gradient = value_and_grad(theta, eta, batch)
        if rule == "first_order":
            gradient = jax.lax.stop_gradient(gradient)
        gradient = checkpoint_name(gradient, INNER_GRADIENTS)
        slope = jax.tree.map(jnp.add, gradient, pull(inner, eta, theta, start))
        updates, state = transform.update(slope, state, theta)
        return (optax.apply_updates(theta, updates), state), value

    return step


def _cut(batches: Tree, at: int) -> tuple[Tree, Tree]:
    early = jax.tree.map(lambda x: x[:at], batches)
    return early, jax.tree.map(lambda x: x[at:], batches)


def _saving_policy(offload: bool) -> Callable:
    if not offload:
        return jax.checkpoint_policies.save_only_these_names(INNER_GRADIENTS)
    require_pinned_host()
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[INNER_GRADIENTS],
        offload_src="device",
        offload_dst="pinned_host",
    )


def _nearest_to_root(steps: int) -> int:
    divisors = [d for d in range(1, steps + 1) if steps % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d * d / steps)))

"""A differentiable training loop: any optax update, scanned, with everything learnt an argument.

    inner = InnerLoop(loss, optax.sgd(0.1), steps=5)      # loss(theta, eta, batch) -> scalar
    trained = inner(theta, eta, batches)                  # batches: leading axis 5
    jax.grad(lambda eta: outer(inner(theta, eta, batches).theta))(eta)

`theta` is what the inner loop trains (all parameters, or an adapter). `eta` is any tree of floats
that shapes the training: example or task weights, curriculum scores, learning rates, the pull to
the start. Frozen parameters may be closed over by the loss: nothing is computed for them.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree
from hen_jax.meta.adjoint import Loop, differentiable
from hen_jax.meta.guards import (
    require_full_precision,
    require_leading_axis,
    require_pinned_host,
    require_smooth,
)
from hen_jax.meta.mixflow import Policy

InnerLoss = Callable[[Tree, Tree, Tree], Array]
"""`loss(theta, eta, batch)`, a scalar."""

InnerOptimizer = optax.GradientTransformation | Callable[[Tree], optax.GradientTransformation]
"""An optax transformation, or a function of `eta` that returns one."""

Rule = Literal["mixflow", "unroll", "first_order"]
"""How the inner gradient is differentiated: forward over reverse, in reverse, or not at all."""


class InnerRun(NamedTuple):
    """The end of an inner loop."""

    theta: Tree
    state: Tree  # of the optimizer; pass it on to continue in a next window
    losses: Array  # [steps], before each update, without the pull to the start
    residual: Array | None = None  # of the linear equations of `implicit`: |b - A x| / |b|


@dataclasses.dataclass(frozen=True)
class InnerLoop:
    """`steps` updates of `theta`, differentiable in `theta` and `eta`.

    The backward pass keeps one gradient per step, on the device or the host, and the parameters and
    optimizer state once per `block` steps; the others are replayed from the saved gradients,
    without evaluating the loss (see `adjoint`).

    Raises:
      InputError: a field is out of range; at the call, `theta` is not float32 or float64, the
        batches do not have `steps` entries, or the optimizer has no derivative at a zero gradient.
    """

    loss: InnerLoss
    optimizer: InnerOptimizer
    steps: int
    repeat: bool = False  # the same batch at each step: batches have no leading steps axis
    proximal: float | Callable[[Tree], Array] = 0.0  # lambda of lambda/2 |theta - start|^2
    block: int = 32  # steps between kept states; a backward step replays half of it on average
    offload: bool = False  # keep the saved inner gradients in pinned host memory
    keep: Policy | None = None  # of `jax.checkpoint`: what of each gradient is not computed twice

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"InnerLoop.steps is {self.steps}; give at least 1")
        if self.block < 1:
            raise InputError(f"InnerLoop.block is {self.block}; give at least 1")

    def __call__(
        self,
        theta: Tree,
        eta: Tree,
        batches: Tree,
        state: Tree | None = None,
        *,
        rule: Rule = "mixflow",
        window: int | None = None,
    ) -> InnerRun:
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
        if self.offload:
            require_pinned_host()
        if state is None:
            state = transformation(self, eta).init(theta)

        constant = self.steps - window
        early, late = (batches, batches) if self.repeat else _cut(batches, constant)
        carry, first = _train(self, "first_order", theta, eta, (theta, state), early, constant)
        (trained, state), last = _train(self, rule, theta, eta, carry, late, window)
        return InnerRun(trained, state, jnp.concatenate([first, last]))


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


def clip_by_norm(limit: float | Array) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, digit for digit, with a derivative where all gradients are zero.

    There it is the identity. The root of a zero sum of squares has no derivative, and reverse mode
    makes NaN of that even on the side of a `where` that is not taken.
    """

    def clip(updates: Tree, _: Tree) -> Tree:
        squared = optax.tree.norm(updates, squared=True)
        norm = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), squared)
        within = norm < limit
        divisor = jnp.where(within, 1.0, norm)
        return jax.tree.map(
            lambda t: jnp.where(within, t, (t / divisor.astype(t.dtype)) * limit), updates
        )

    return optax.stateless(clip)


def transformation(inner: InnerLoop, eta: Tree) -> optax.GradientTransformation:
    """The optax transformation of `inner`, at `eta`."""
    if isinstance(inner.optimizer, optax.GradientTransformation):
        return inner.optimizer
    return inner.optimizer(eta)


def pull(inner: InnerLoop, eta: Tree, theta: Tree, start: Tree) -> Tree:
    """The gradient of the proximal term, `lambda (theta - start)`."""
    strength = inner.proximal(eta) if callable(inner.proximal) else inner.proximal
    return jax.tree.map(lambda here, there: strength * (here - there), theta, start)


def _train(
    inner: InnerLoop, rule: Rule, start: Tree, eta: Tree, carry: tuple, batches: Tree, steps: int
) -> tuple[tuple, Array]:
    """`steps` updates from `carry = (theta, state)`, and the losses."""
    if steps == 0:
        return carry, jnp.zeros((0,))
    pulled_to = start if callable(inner.proximal) or inner.proximal else None
    inputs = (pulled_to, eta, batches if inner.repeat else None)
    batches = None if inner.repeat else batches
    loss, update = _loss_of(inner), _update_of(inner)
    if rule == "unroll":
        return _unrolled(loss, update, carry, inputs, batches, steps)

    one = jax.tree.map(lambda x: x[0], batches)
    loss, loss_reads = jax.closure_convert(loss, carry[0], inputs, one)
    update, update_reads = jax.closure_convert(update, *carry, carry[0], inputs)
    loop = Loop(
        lambda theta, given, batch: loss(theta, given[0], batch, *given[1]),
        lambda theta, state, gradient, given: update(theta, state, gradient, given[0], *given[2]),
        steps,
        inner.block,
        inner.offload,
        curved=rule == "mixflow",
        keep=inner.keep,
    )
    theta, state, losses = differentiable(loop)(*carry, (inputs, loss_reads, update_reads), batches)
    return (theta, state), losses


def _unrolled(
    loss: Callable, update: Callable, carry: tuple, inputs: tuple, batches: Tree, steps: int
) -> tuple[tuple, Array]:
    def step(carry: tuple, batch: Tree) -> tuple[tuple, Array]:
        value, gradient = jax.value_and_grad(loss)(carry[0], inputs, batch)
        return update(*carry, gradient, inputs), value

    return jax.lax.scan(step, carry, batches, length=steps)


def _loss_of(inner: InnerLoop) -> Callable[[Tree, tuple, Tree], Array]:
    def loss(theta: Tree, inputs: tuple, batch: Tree) -> Array:
        _, eta, repeated = inputs
        return inner.loss(theta, eta, repeated if inner.repeat else batch)

    return loss


def _update_of(inner: InnerLoop) -> Callable[[Tree, Tree, Tree, tuple], tuple[Tree, Tree]]:
    def update(theta: Tree, state: Tree, gradient: Tree, inputs: tuple) -> tuple[Tree, Tree]:
        start, eta, _ = inputs
        if start is not None:
            gradient = jax.tree.map(jnp.add, gradient, pull(inner, eta, theta, start))
        updates, state = transformation(inner, eta).update(gradient, state, theta)
        return optax.apply_updates(theta, updates), state

    return update


def _cut(batches: Tree, at: int) -> tuple[Tree, Tree]:
    early = jax.tree.map(lambda x: x[:at], batches)
    return early, jax.tree.map(lambda x: x[at:], batches)

"""The gradient of an outer loss through inner training, by five methods behind one signature.

    inner = InnerLoop(loss, optax.sgd(0.1), steps=5)               # loss(theta, eta, batch)
    meta = jax.jit(meta_gradient(inner, query_loss))               # query_loss(theta, eta, query)
    value, d_theta, d_eta, trained = meta(theta, eta, batches, query)

Tasks run in parallel under `jax.vmap(meta, in_axes=(None, None, 0, 0))`; take the mean after.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree
from hen_jax.meta.implicit import Solver, conjugate_gradient, implicit
from hen_jax.meta.inner import InnerLoop, Trained

Mode = Literal["mixflow", "unroll", "first_order", "reptile", "implicit"]

OuterLoss = Callable[[Tree, Tree, Tree], Array]
"""`outer_loss(theta_K, eta, query)`, a scalar."""


class MetaGradient(NamedTuple):
    """The outer loss after inner training, and its derivatives."""

    value: Array  # scalar
    theta: Tree  # with respect to the start of the inner loop
    eta: Tree  # with respect to the outer variables; None for Reptile, which defines none
    trained: Trained


def meta_gradient(
    inner: InnerLoop,
    outer_loss: OuterLoss,
    mode: Mode | str = "mixflow",
    *,
    window: int | None = None,
    solver: Solver | None = None,
) -> Callable[..., MetaGradient]:
    """`(theta, eta, batches, query, state=None) -> MetaGradient`, a pure function.

    | mode          | gradient                           | memory beyond one inner gradient      |
    |---------------|------------------------------------|---------------------------------------|
    | `mixflow`     | exact                              | one gradient per step                 |
    | `unroll`      | exact, the reference               | activations of each forward, backward |
    | `first_order` | inner gradients are constants      | none                                  |
    | `reptile`     | `theta - theta_K`, no outer loss   | none                                  |
    | `implicit`    | exact at the proximal minimiser    | none, whatever the number of steps    |

    On `L = a/2 (theta - c)^2` with one SGD step of rate r, `first_order` lacks the factor `1 - r a`
    that the exact modes have, and `implicit` gives `1 / (1 + a / lambda)`. Under `jit`, whichever
    of the two derivatives is not used is not computed.

    Args:
      inner: what happens between the start and `theta_K`.
      outer_loss: what is to be small after it.
      mode: the method.
      window: `mixflow` and `unroll`: differentiate only the last `window` inner gradients; see
        `InnerLoop`. To update between windows of one long training, use short inner loops and
        hand `trained.theta` and `trained.state` to the next.
      solver: `implicit`: `conjugate_gradient()` (default) or `neumann(...)`.

    Raises:
      InputError: an unknown mode, or an option that the mode does not read.
    """
    train = _training(inner, mode, window, solver)
    if train is None:
        return _reptile(inner, outer_loss)

    def objective(theta: Tree, eta: Tree, batches: Tree, query: Tree, state: Tree | None):
        trained = train(theta, eta, batches, state)
        return outer_loss(trained.theta, eta, query), trained

    def gradient(
        theta: Tree, eta: Tree, batches: Tree, query: Tree, state: Tree | None = None
    ) -> MetaGradient:
        differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        (value, trained), (d_theta, d_eta) = differentiate(theta, eta, batches, query, state)
        return MetaGradient(value, d_theta, d_eta, trained)

    return gradient


def _training(
    inner: InnerLoop, mode: Mode | str, window: int | None, solver: Solver | None
) -> Callable[..., Trained] | None:
    """The inner training with the derivative of `mode`; None for Reptile, which needs none."""
    if window is not None and mode not in ("mixflow", "unroll"):
        raise InputError(f"mode {mode!r} reads no window; leave it out or use 'mixflow'")
    if solver is not None and mode != "implicit":
        raise InputError(f"mode {mode!r} reads no solver; leave it out or use 'implicit'")
    match mode:
        case "reptile":
            return None
        case "implicit":
            return implicit(inner, solver or conjugate_gradient())
        case "mixflow" | "unroll" | "first_order":
            return jax.tree_util.Partial(inner, rule=mode, window=window)
        case _:
            raise InputError(f"unknown mode {mode!r}; use one of {', '.join(get_args(Mode))}")


def _reptile(inner: InnerLoop, outer_loss: OuterLoss) -> Callable[..., MetaGradient]:
    """Nichol et al., arXiv 1803.02999: the gradient of `1/2 |theta - stop(theta_K)|^2`."""

    def gradient(
        theta: Tree, eta: Tree, batches: Tree, query: Tree, state: Tree | None = None
    ) -> MetaGradient:
        trained = inner(theta, eta, batches, state, rule="first_order")
        value = outer_loss(trained.theta, eta, query)
        return MetaGradient(value, jax.tree.map(jnp.subtract, theta, trained.theta), None, trained)

    return gradient

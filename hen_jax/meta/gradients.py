"""The gradient of an outer loss through inner training, by five methods behind one signature.

    inner = InnerLoop(loss, optax.sgd(0.1), steps=5)               # loss(theta, eta, batch)
    meta = jax.jit(meta_gradient(inner, query_loss))               # query_loss(theta, eta, query)
    value, d_theta, d_eta, trained = meta(theta, eta, batches, query)

Tasks run in parallel under `jax.vmap(meta, in_axes=(None, None, 0, 0))`; take the mean after.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree
from hen_jax.meta.guards import require_leading_axis
from hen_jax.meta.implicit import Solver, conjugate_gradient, implicit_gradient
from hen_jax.meta.inner import InnerLoop, InnerRun, Rule
from hen_jax.meta.symmetry import require_symmetric_if_known

GradientMode = Literal["mixflow", "unroll", "first_order", "reptile", "implicit"]

OuterLoss = Callable[[Tree, Tree, Tree], Array]
"""`outer_loss(theta_K, eta, query)`, a scalar."""


class MetaGradient(NamedTuple):
    """The outer loss after inner training, and its derivatives."""

    value: Array  # scalar
    theta: Tree  # with respect to the start of the inner loop
    eta: Tree  # with respect to the outer variables; None for Reptile, which defines none
    trained: InnerRun


BOUND = 1e-3
"""The residual beyond which derivatives of `implicit` are NaN, if nothing else is asked for."""


def meta_gradient(
    inner: InnerLoop,
    outer_loss: OuterLoss,
    mode: GradientMode | str = "mixflow",
    *,
    window: int | None = None,
    solver: Solver | None = None,
    bound: float | None = None,
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
      bound: `implicit`: the derivatives are NaN where the relative residual of the solver exceeds
        it; `math.inf` takes them as they are. `trained.residual` says what it is.

    Raises:
      InputError: an unknown mode, or an option that the mode does not read; at a call outside
        `jit`, an inner loss that `require_symmetric` refuses (inside `jit`, call that once before).
    """
    _require_read(mode, window, solver, bound)
    if mode == "reptile":
        return _reptile(inner, outer_loss)
    if mode == "implicit":
        bound = BOUND if bound is None else bound
        return _implicit(inner, outer_loss, solver or conjugate_gradient(), bound)
    if mode not in get_args(Rule):
        raise InputError(f"unknown mode {mode!r}; use one of {', '.join(get_args(GradientMode))}")
    return _exact(inner, outer_loss, cast(Rule, mode), window)


def _exact(
    inner: InnerLoop, outer_loss: OuterLoss, rule: Rule, window: int | None
) -> Callable[..., MetaGradient]:
    """The derivatives of the outer loss through the inner loop, by the rule's way of doing so."""

    def objective(theta: Tree, eta: Tree, batches: Tree, query: Tree, state: Tree | None):
        trained = inner(theta, eta, batches, state, rule=rule, window=window)
        return outer_loss(trained.theta, eta, query), trained

    def gradient(
        theta: Tree, eta: Tree, batches: Tree, query: Tree, state: Tree | None = None
    ) -> MetaGradient:
        if rule == "mixflow":
            require_symmetric_if_known(inner.loss, theta, eta, _one(inner, batches))
        differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        (value, trained), (d_theta, d_eta) = differentiate(theta, eta, batches, query, state)
        return MetaGradient(value, d_theta, d_eta, trained)

    return gradient


def _require_read(
    mode: GradientMode | str, window: int | None, solver: Solver | None, bound: float | None
) -> None:
    if window is not None and mode not in ("mixflow", "unroll"):
        raise InputError(f"mode {mode!r} reads no window; leave it out or use 'mixflow'")
    for name, option in (("solver", solver), ("bound", bound)):
        if option is not None and mode != "implicit":
            raise InputError(f"mode {mode!r} reads no {name}; leave it out or use 'implicit'")


def _implicit(
    inner: InnerLoop, outer_loss: OuterLoss, solver: Solver, bound: float
) -> Callable[..., MetaGradient]:
    of_minimiser = implicit_gradient(inner, outer_loss, solver, bound)

    def gradient(
        theta: Tree, eta: Tree, batches: Tree, query: Tree, state: Tree | None = None
    ) -> MetaGradient:
        require_symmetric_if_known(inner.loss, theta, eta, batches)
        return MetaGradient(*of_minimiser(theta, eta, batches, query, state))

    return gradient


def _one(inner: InnerLoop, batches: Tree) -> Tree:
    if inner.repeat:
        return batches
    require_leading_axis(batches, inner.steps)
    return jax.tree.map(lambda leaf: leaf[0], batches)


def _reptile(inner: InnerLoop, outer_loss: OuterLoss) -> Callable[..., MetaGradient]:
    """Nichol et al., arXiv 1803.02999: the gradient of `1/2 |theta - stop(theta_K)|^2`."""

    def gradient(
        theta: Tree, eta: Tree, batches: Tree, query: Tree, state: Tree | None = None
    ) -> MetaGradient:
        trained = inner(theta, eta, batches, state, rule="first_order")
        value = outer_loss(trained.theta, eta, query)
        return MetaGradient(value, jax.tree.map(jnp.subtract, theta, trained.theta), None, trained)

    return gradient

"""Meta-gradients from the minimiser instead of the path: iMAML, arXiv 1909.04630, and Neumann.

At the minimiser `phi` of `L(phi, eta) + lambda/2 |phi - theta|^2` the slope is zero,

    F(phi, theta, eta) = dL/dphi + lambda (phi - theta) = 0,

so `dphi = -A^-1 dF(theta, eta)` with `A = dF/dphi = H + lambda I`. For `theta` this is iMAML's
`(I + H / lambda)^-1`. Memory does not grow with the number of inner steps, and any inner optimizer
will do, differentiable or not; the result is exact as far as `phi` is the minimiser.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree
from hen_jax.meta.inner import InnerLoop, Trained, pull
from hen_jax.meta.mixflow import mixed_value_and_grad

Solver = Callable[[Callable[[Tree], Tree], Tree], Tree]
"""`solver(matvec, b)`, an approximate solution of `matvec(x) = b` for a symmetric `matvec`."""


def conjugate_gradient(iterations: int = 10, tolerance: float = 1e-6) -> Solver:
    """Solves by conjugate gradients: `H + lambda I` must be positive definite."""
    return lambda matvec, b: cg(matvec, b, tol=tolerance, maxiter=iterations)[0]


def neumann(iterations: int, rate: float) -> Solver:
    """Solves by the series `rate * sum_j (I - rate A)^j b` (Lorraine et al., arXiv 1911.02590).

    Converges where `rate` is below `2 / |A|`, and damps directions of little curvature when cut
    short. One Hessian-vector product per iteration.
    """

    def solve(matvec: Callable[[Tree], Tree], b: Tree) -> Tree:
        def unfinished(carry: tuple) -> Array:
            done, _, term = carry
            return (done < iterations) & jnp.any(
                jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(term)])
            )

        def add(carry: tuple) -> tuple:
            done, total, term = carry
            total = jax.tree.map(jnp.add, total, term)
            term = jax.tree.map(lambda x, ax: x - rate * ax, term, matvec(term))
            return done + 1, total, term

        start = (0, jax.tree.map(jnp.zeros_like, b), b)
        _, total, _ = jax.lax.while_loop(unfinished, add, start)
        return jax.tree.map(lambda x: rate * x, total)

    return solve


def implicit(
    inner: InnerLoop, solver: Solver
) -> Callable[[Tree, Tree, Tree, Tree | None], Trained]:
    """Trains as `inner` does; the derivative of the result is that of the exact minimiser.

    Where `inner.proximal` is 0 the minimiser forgets its start: the gradient to `theta` is zero.

    Raises:
      InputError: `inner` draws a new batch at each step, so there is no one objective.
    """
    if not inner.repeat:
        raise InputError(
            "mode 'implicit' differentiates the minimiser of one objective; set repeat=True on "
            "the InnerLoop, with one batch for all steps"
        )

    def slope(gradient: Callable, phi: Tree, theta: Tree, eta: Tree, batch: Tree) -> Tree:
        return jax.tree.map(jnp.add, gradient(phi, eta, batch), pull(inner, eta, phi, theta))

    def train(theta: Tree, eta: Tree, batch: Tree, state: Tree | None = None) -> Trained:
        start, fixed = jax.lax.stop_gradient((theta, eta))
        trained = jax.lax.stop_gradient(inner(start, fixed, batch, state, rule="first_order"))
        phi = trained.theta

        def matvec(x: Tree) -> Tree:
            plain = jax.grad(inner.loss)
            return jax.jvp(lambda at: slope(plain, at, start, fixed, batch), (phi,), (x,))[1]

        mixed = mixed_value_and_grad(inner.loss)
        residual = slope(lambda *at: mixed(*at)[1], phi, theta, eta, batch)
        # Zero in value, so the solver has nothing to do forward; in reverse it meets the cotangent.
        change = jax.tree.map(lambda r: r - jax.lax.stop_gradient(r), residual)
        newton = jax.lax.custom_linear_solve(matvec, change, solver, symmetric=True)
        return trained._replace(theta=jax.tree.map(jnp.subtract, phi, newton))

    return train

"""Meta-gradients from the minimiser instead of the path: iMAML, arXiv 1909.04630, and Neumann.

At the minimiser `phi` of `L(phi, eta) + lambda/2 |phi - theta|^2` the slope is zero,

    F(phi, theta, eta) = dL/dphi + lambda (phi - theta) = 0,

so `dphi = -A^-1 dF(theta, eta)` with `A = dF/dphi = H + lambda I`. For `theta` this is iMAML's
`(I + H / lambda)^-1`. Memory does not grow with the number of inner steps, and any inner optimizer
will do, differentiable or not; the result is exact as far as `phi` is the minimiser.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import cg

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree
from hen_jax.meta.inner import InnerLoop, InnerRun, pull
from hen_jax.meta.mixflow import mixed_value_and_grad

Solver = Callable[[Callable[[Tree], Tree], Tree], Tree]
"""`solver(matvec, b)`, an approximate solution of `matvec(x) = b` for a symmetric `matvec`."""


def conjugate_gradient(iterations: int = 1000, tolerance: float = 1e-6) -> Solver:
    """Solves by conjugate gradients: `H + lambda I` must be positive definite.

    Stops where `|b - A x| <= tolerance |b|`, after `iterations` products at the latest. With
    curvatures from 1e-3 to 1e2 and `lambda = 1` some 50 are needed, with 0.01 some 500: about the
    square root of the largest over the smallest eigenvalue of `A`, times a few.
    """
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


class Solution(NamedTuple):
    """What a solver found, and how far off it is."""

    x: Tree
    residual: Array  # |b - A x| / |b|, computed anew at the end; 0 where b is 0


def solved(solver: Solver, matvec: Callable[[Tree], Tree], b: Tree) -> Solution:
    """Solves `matvec(x) = b`, and measures what is left."""
    x = solver(matvec, b)
    left = optax.tree.norm(jax.tree.map(jnp.subtract, b, matvec(x)))
    size = optax.tree.norm(b)
    return Solution(x, left / jnp.where(size > 0, size, 1))


def implicit_gradient(
    inner: InnerLoop,
    outer_loss: Callable[[Tree, Tree, Tree], Array],
    solver: Solver,
    bound: float,
) -> Callable[..., tuple[Array, Tree, Tree, InnerRun]]:
    """`(theta, eta, batch, query, state) -> (value, d_theta, d_eta, trained)`.

    Trains as `inner` does; the derivatives are those of the exact minimiser. With `x` from
    `A x = d outer / d phi` they are `-x . dF/dtheta` and `-x . dF/deta`, and NaN where the residual
    of `x` exceeds `bound`. Where `inner.proximal` is 0 the minimiser forgets its start: the
    gradient to `theta` is zero. If `L` is convex, the gradient to `theta` is off by at most
    `residual |d outer / d phi|`.

    Raises:
      InputError: `inner` draws a new batch at each step, so there is no one objective.
    """
    if not inner.repeat:
        raise InputError(
            "mode 'implicit' differentiates the minimiser of one objective; set repeat=True on "
            "the InnerLoop, with one batch for all steps"
        )

    def gradient(theta: Tree, eta: Tree, batch: Tree, query: Tree, state: Tree | None = None):
        trained = inner(theta, eta, batch, state, rule="first_order")
        phi = trained.theta
        value, (b, direct) = jax.value_and_grad(outer_loss, argnums=(0, 1))(phi, eta, query)

        def slope(gradient: Tree, phi: Tree, theta: Tree, eta: Tree) -> Tree:
            return jax.tree.map(jnp.add, gradient, pull(inner, eta, phi, theta))

        def matvec(x: Tree) -> Tree:
            plain = jax.grad(inner.loss)
            at = lambda phi: slope(plain(phi, eta, batch), phi, theta, eta)  # noqa: E731
            return jax.jvp(at, (phi,), (x,))[1]

        x, residual = solved(solver, matvec, b)
        x = jax.tree.map(lambda leaf: jnp.where(residual <= bound, -leaf, jnp.nan), x)
        mixed = mixed_value_and_grad(inner.loss)
        back = jax.vjp(lambda *at: slope(mixed(phi, at[1], batch)[1], phi, *at), theta, eta)[1]
        d_theta, through = back(x)
        d_eta = jax.tree.map(jnp.add, direct, through)
        return value, d_theta, d_eta, trained._replace(residual=residual)

    return gradient

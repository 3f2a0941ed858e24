"""Whether the gradient of an inner loss is one: forward over reverse takes that for granted.

`mixflow` and `implicit` exchange second derivatives. That is right for every gradient of a
function, and wrong where a `jax.custom_vjp` or `jax.custom_jvp` scales, clips or reverses what is
passed back: then `u . dg/dx` and `d/de g_x(theta + e u)` are two numbers. So both are computed, for
random directions.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import Jaxpr, jaxprs_in_params

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree

TOLERANCE = 1e-3
"""The relative difference of exchanged second derivatives that no rounding of float32 explains."""

NOISE = 20.0
"""Differences up to so many times the rounding that the probe sees are taken for rounding."""


class Asymmetry(NamedTuple):
    """What `asymmetry` finds, both relative to the size of a product."""

    difference: Array  # scalar; of second derivatives that ought to be equal
    noise: Array  # scalar; of one that is computed twice, along `u` and along `3 u`


def require_symmetric(
    loss: Callable[[Tree, Tree, Tree], Array], theta: Tree, eta: Tree, batch: Tree
) -> None:
    """Raises `InputError` if `mixflow` and `implicit` would be wrong for `loss`, at this point.

    Call it once before training, outside `jit`, where a custom derivative rule has a hand in the
    loss. It compiles one `jvp` of one gradient and runs it twelve times. A rule that clips is seen
    only where it clips: give it a point and a batch at which it does.
    """
    found = jax.jit(partial(asymmetry, loss))(theta, eta, batch)
    difference, noise = float(found.difference), float(found.noise)
    if difference > max(TOLERANCE, NOISE * noise):
        raise InputError(
            "the gradient of the inner loss is no gradient of a function: second derivatives that "
            f"ought to be equal differ by {difference:.1%} (rounding: {noise:.0e}), so that "
            "'mixflow' and 'implicit' would be wrong. A jax.custom_vjp or jax.custom_jvp that "
            "scales, clips or reverses a gradient does this; use mode='unroll'"
        )


def require_symmetric_if_known(
    loss: Callable[[Tree, Tree, Tree], Array], theta: Tree, eta: Tree, batch: Tree
) -> None:
    """`require_symmetric`, if `loss` calls a function with a derivative rule of its own.

    Does nothing where a value is not known yet, as inside `jit`.
    """
    if _unknown((theta, eta, batch)):
        return
    traced = jax.make_jaxpr(loss)(theta, eta, batch)
    if _has_custom_rule(traced.jaxpr) and not _unknown(traced.consts):
        require_symmetric(loss, theta, eta, batch)


def _unknown(tree: Tree) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def asymmetry(
    loss: Callable[[Tree, Tree, Tree], Array],
    theta: Tree,
    eta: Tree,
    batch: Tree,
    *,
    pairs: int = 3,
    seed: int = 0,
) -> Asymmetry:
    """How far the derivatives of `loss`'s gradient are from symmetric.

    Compares `w . D[u]` with `u . D[w]`, where `D[x]` is the derivative of the gradient along `x`,
    `u` moves `theta`, and `w` moves `theta` and then `eta`; the worse of the two, as the root mean
    square over random pairs of signs. On `g = (x, -y)`, which is a gradient, it is 0; on
    `g = (y, -x)` it is 2.
    """
    gradient = jax.grad(lambda theta, eta: loss(theta, eta, batch), argnums=(0, 1))
    start = jax.tree.map(jnp.asarray, (theta, eta))

    def of_pair(key: Array) -> tuple[Array, Array]:
        keys = jax.random.split(key, 3)
        u, w = _signs(keys[0], start[0]), _signs(keys[1], start[0])
        of_eta = _signs(keys[2], start[1])

        product = _product(gradient, start, (u, w, of_eta))
        directions = jnp.asarray([[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 0]], jnp.float32)
        along_u, along_w, along_eta, again = zip(
            *(list(column) for column in jax.lax.map(product, directions)), strict=True
        )
        sizes = jnp.stack(
            [jnp.maximum(along_u[3], along_w[3]), jnp.maximum(along_u[4], along_eta[3])]
        )
        sizes = jnp.where(sizes > 0, sizes, 1.0)
        apart = jnp.stack([along_u[1] - along_w[0], along_u[2] - along_eta[0]])
        rounded = jnp.stack([again[1] / 3 - along_u[1], again[2] / 3 - along_u[2]])
        return apart / sizes, rounded / sizes

    found = jax.lax.map(of_pair, jax.random.split(jax.random.key(seed), pairs))
    return Asymmetry(*(jnp.sqrt(jnp.mean(x**2, axis=0)).max() for x in found))


def _product(
    gradient: Callable[[Tree, Tree], tuple[Tree, Tree]],
    start: tuple[Tree, Tree],
    signs: tuple[Tree, Tree, Tree],
) -> Callable[[Array], tuple[Array, ...]]:
    """The derivative along a weighted sum of the signs `u`, `w` and that of `eta`, met by each.

    One compiled product for all directions, and never two of them in memory.
    """
    u, w, of_eta = signs

    def product(weights: Array) -> tuple[Array, ...]:
        moved = jax.tree.map(lambda a, b: weights[0] * a + weights[1] * b, u, w)
        direction = moved, jax.tree.map(lambda leaf: weights[2] * leaf, of_eta)
        direction = jax.tree.map(lambda d, x: d.astype(x.dtype), direction, start)
        to_theta, to_eta = jax.jvp(gradient, start, direction)[1]
        return (
            _dot(to_theta, u),
            _dot(to_theta, w),
            _dot(to_eta, of_eta),
            _dot(to_theta, to_theta) ** 0.5,
            _dot(to_eta, to_eta) ** 0.5,
        )

    return product


def _signs(key: Array, tree: Tree) -> Tree:
    """A random sign for each entry."""
    leaves, treedef = jax.tree.flatten(tree)
    drawn = [
        jax.random.rademacher(jax.random.fold_in(key, number), leaf.shape, jnp.float32)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, drawn)


def _dot(first: Tree, second: Tree) -> Array:
    products = jax.tree.map(lambda x, y: (x * y).sum().astype(jnp.float32), first, second)
    return sum(jax.tree.leaves(products), jnp.zeros(()))


def _has_custom_rule(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive.name.startswith("custom_")
        or any(_has_custom_rule(inner) for inner in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )

"""A gradient whose own gradient is forward over reverse: MixFlow-MG, arXiv 2505.00793.

An inner training step uses `g = d loss / d theta`. To differentiate a training run, its backward
pass needs `u . dg/dtheta` and `u . dg/deta` for a cotangent `u`. Reverse over reverse keeps the
activations of a backward pass; but both products are also the directional derivative of the
gradient with respect to (theta, eta) along (u, 0), because second derivatives commute:

    u . d(dL/dtheta)/dtheta = d/de dL/dtheta (theta + e u, eta)     at e = 0
    u . d(dL/dtheta)/deta   = d/de dL/deta   (theta + e u, eta)     at e = 0

so one `jax.jvp` of one gradient gives both, with the memory of about one gradient.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero

from hen_jax.core.types import Array, Tree


def mixed_value_and_grad(loss: Callable[..., Array]) -> Callable[..., tuple[Array, Tree]]:
    """`jax.value_and_grad(loss)` whose own derivative is one `jvp` of one gradient, and exact.

    Every float array that `loss` reads gets its exact cotangent, where one is asked for: the first
    argument, the others, and what the loss closes over. The loss must have a forward-mode rule: no
    fused attention kernel, and no `jax.custom_vjp` but those whose rules have one. The result
    cannot itself be differentiated forward (`jax.jvp`, `jax.hessian`): use `jax.value_and_grad`
    for that.
    """

    def value_and_grad(theta: Tree, *inputs: Tree) -> tuple[Array, Tree]:
        pure, closed = jax.closure_convert(loss, theta, *inputs)
        return _with_mixed_derivative(pure)(theta, (*inputs, *closed))

    return value_and_grad


def pulled_back(
    loss: Callable[[Tree, Tree], Array],
    theta: Tree,
    inputs: Tree,
    of_value: Array | None,
    of_gradient: Tree,
) -> tuple[Tree, Tree]:
    """Cotangents of `theta` and `inputs`, given those of the loss (None is 0) and its gradient."""
    gradients = jax.grad(loss, argnums=(0, 1))
    primal, tangent = jax.jvp(lambda at: gradients(at, inputs), (theta,), (of_gradient,))
    return tangent if of_value is None else _added(of_value, primal, tangent)


Policy = Callable[..., Any]
"""A policy of `jax.checkpoint`, such as those of `jax.checkpoint_policies`."""


class Linearised(NamedTuple):
    """A gradient at one point, ready for its derivative along any direction."""

    primal: tuple[Tree, Tree]  # gradients with respect to theta and the inputs
    tangent: Tree  # a callable pytree: direction -> derivative of `primal`


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class InputRef:
    """Stands in a `Linearised` for an array that is an input anyway, such as a frozen kernel."""

    index: int


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """Stands in a `Linearised` for an array that the loss closes over: there anyway, too."""

    value: Array


def linearised(
    loss: Callable[[Tree, Tree], Array], theta: Tree, inputs: Tree, given: Tree, keep: Policy
) -> tuple[Array, Tree, Linearised]:
    """The loss, its gradient in `theta`, and what `apply_linearised` needs.

    Of the values that the gradient computes those that `keep` names are kept, the others computed
    again; arrays of `given` are there anyway and not kept.
    """

    def gradients(theta: Tree) -> tuple[tuple[Tree, Tree], Array]:
        value, found = jax.value_and_grad(loss, argnums=(0, 1))(theta, inputs)
        return found, value

    thrifty = jax.checkpoint(gradients, policy=keep, prevent_cse=False)
    primal, tangent, value = jax.linearize(thrifty, theta, has_aux=True)
    place = {id(leaf): index for index, leaf in enumerate(jax.tree.leaves(given))}
    _require_met(jax.tree.leaves(tangent), given)

    def thinned(leaf: Array) -> Array | InputRef | Constant:
        if id(leaf) in place:
            return InputRef(place[id(leaf)])
        return leaf if isinstance(leaf, Tracer) else Constant(leaf)

    tangent = jax.tree.map(thinned, tangent)
    return value, primal[0], Linearised(primal, tangent)


def _require_met(residuals: list[Array], given: Tree) -> None:
    """Raises `AssertionError` if what is kept seems to hold a copy of a matrix of `given`.

    Matrices are recognised by identity. If some way of tracing made a copy of one, the copy would
    be kept once per inner step, and nothing but the memory would tell.
    """
    met = {id(leaf) for leaf in residuals}
    unmet = {
        (jnp.shape(leaf), leaf.dtype)
        for leaf in jax.tree.leaves(given)
        if jnp.ndim(leaf) > 1 and jnp.issubdtype(leaf.dtype, jnp.inexact) and id(leaf) not in met
    }
    theirs = {id(leaf) for leaf in jax.tree.leaves(given)}
    copies = [x for x in residuals if id(x) not in theirs and (jnp.shape(x), x.dtype) in unmet]
    assert not copies, (
        f"an inner gradient keeps {[jax.typeof(x).str_short() for x in copies]}, which look like "
        "copies of frozen matrices: one more would be kept per inner step; leave out keep="
    )


def apply_linearised(
    kept: Linearised, given: Tree, of_value: Array | None, of_gradient: Tree
) -> tuple[Tree, Tree]:
    """`pulled_back` from what `linearised` kept."""
    leaves = jax.tree.leaves(given)

    def whole(leaf: Array | InputRef | Constant) -> Array:
        if isinstance(leaf, Constant):
            return leaf.value
        return leaves[leaf.index] if isinstance(leaf, InputRef) else leaf

    tangent = jax.tree.map(
        whole, kept.tangent, is_leaf=lambda leaf: isinstance(leaf, InputRef | Constant)
    )(of_gradient)
    return tangent if of_value is None else _added(of_value, kept.primal, tangent)


def _added(of_value: Array, primal: Tree, tangent: Tree) -> Tree:
    # The inner loss itself may be part of the outer objective; its gradient comes for free.
    return jax.tree.map(lambda g, hu: of_value * g + hu, primal, tangent)


def split_perturbed(primals: Tree) -> tuple[Tree, Tree]:
    """The values that are differentiated and the others, each with None in place of the rest.

    `primals` is what a forward rule with `symbolic_zeros=True` is given.
    """
    moving = jax.tree.map(lambda primal: primal.value if primal.perturbed else None, primals)
    return moving, jax.tree.map(lambda p: None if p.perturbed else p.value, primals)


def merge_perturbed(first: Tree, second: Tree) -> Tree:
    """The inverse of `split_perturbed`."""
    return jax.tree.map(
        lambda one, other: other if one is None else one, first, second, is_leaf=lambda x: x is None
    )


def floating(tree: Tree) -> tuple[Tree, Tree]:
    """The float leaves of a tree and the others (counts, keys), each with None for the rest."""

    def is_float(leaf: Array) -> bool:
        return leaf is not None and jnp.issubdtype(jax.typeof(leaf).dtype, jnp.inexact)

    floats = jax.tree.map(lambda leaf: leaf if is_float(leaf) else None, tree)
    return floats, jax.tree.map(lambda leaf: None if is_float(leaf) else leaf, tree)


def drop_zeros(cotangent: Tree) -> Tree:
    """`cotangent` with None for the leaves that are zero whatever the input."""
    return jax.tree.map(
        lambda leaf: None if isinstance(leaf, SymbolicZero) else leaf,
        cotangent,
        is_leaf=lambda leaf: isinstance(leaf, SymbolicZero),
    )


def _with_mixed_derivative(loss: Callable[..., Array]) -> Callable[..., tuple[Array, Tree]]:
    @jax.custom_vjp
    def value_and_grad(theta: Tree, inputs: tuple) -> tuple[Array, Tree]:
        return jax.value_and_grad(loss)(theta, *inputs)

    def forward(theta: Tree, inputs: tuple):
        theta = jax.tree.map(lambda primal: primal.value, theta)
        moving, fixed = split_perturbed(inputs)
        return value_and_grad(theta, merge_perturbed(moving, fixed)), (theta, moving, fixed)

    def backward(saved: tuple, cotangent: tuple[Array, Tree]):
        theta, moving, fixed = saved
        of_value, of_gradient = drop_zeros(cotangent)
        of_gradient = merge_perturbed(of_gradient, jax.tree.map(jnp.zeros_like, theta))

        def of_moving(theta: Tree, moving: tuple) -> Array:
            return loss(theta, *merge_perturbed(moving, fixed))

        return pulled_back(of_moving, theta, moving, of_value, of_gradient)

    value_and_grad.defvjp(forward, backward, symbolic_zeros=True)
    return value_and_grad

"""What would give NaN, rounding or nonsense in a meta-gradient, refused before anything runs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree
from hen_jax.meta.mixflow import floating, merge_perturbed


def require_full_precision(theta: Tree) -> None:
    """Raises `InputError` unless every leaf is float32 or float64.

    A meta-gradient is a difference of nearly equal gradients; compute in bfloat16 inside the loss
    if need be, but keep the inner parameters, and so their cotangents, in full precision.
    """
    for path, leaf in jax.tree.leaves_with_path(theta):
        dtype = jax.typeof(leaf).dtype
        if dtype not in (jnp.float32, jnp.float64):
            raise InputError(
                f"theta{jax.tree_util.keystr(path)} is {dtype}; cast the inner parameters to "
                "float32 (the loss may cast down again)"
            )


def require_leading_axis(batches: Tree, steps: int) -> None:
    """Raises `InputError` unless every leaf of `batches` has a leading axis of `steps`."""
    for path, leaf in jax.tree.leaves_with_path(batches):
        shape = jnp.shape(leaf)
        if not shape or shape[0] != steps:
            raise InputError(
                f"batches{jax.tree_util.keystr(path)} has shape {shape}; give it a leading axis "
                f"of steps = {steps}, or set repeat=True to use one batch at each step"
            )


def require_smooth(
    transform: Callable[[Tree], optax.GradientTransformation], theta: Tree, eta: Tree
) -> None:
    """Raises `InputError` if the optimizer has no finite derivative where a gradient is zero.

    `optax.adam` divides by `sqrt(nu + eps_root) + eps`; with its default `eps_root=0` the
    derivative at a zero gradient is NaN, and the meta-gradient with it. A norm has none where all
    of it is zero (`optax.clip_by_global_norm`). Exactly zero gradients are the rule, not the
    exception: a LoRA `a` while its `b` is still zero, an unused row of the embedding, every leaf
    where the weights of the examples start at zero.

    So one update is differentiated in reverse, as the meta-gradient does it, on a tree of the same
    structure with at most two entries per axis: gradients that are zero in places, in every other
    leaf, and everywhere, with parameters that are zero in the other leaves.
    """
    with jax.ensure_compile_time_eval():
        probe = jax.tree.map(lambda leaf: jnp.ones(_small(leaf), leaf.dtype), theta)
        eta = jax.tree.map(lambda leaf: jnp.full(_small(leaf), 0.5), eta)
        start = transform(eta).init(probe)
        floats, others = floating(start)

        def slopes(gradient: Tree, params: Tree) -> tuple[Tree, ...]:
            def update(gradient: Tree, moments: Tree, params: Tree, eta: Tree) -> Tree:
                state = merge_perturbed(moments, others)
                updates, after = transform(eta).update(gradient, state, params)
                return updates, floating(after)[0]

            end, pull = jax.vjp(update, gradient, floats, params, eta)
            return end, pull(jax.tree.map(jnp.ones_like, end))

        found = jax.vmap(slopes)(_zero_in_places(probe), _zero_elsewhere(probe))
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    if not finite:
        raise InputError(
            "the inner optimizer has no finite derivative where a gradient is zero, so the "
            "meta-gradient would be NaN; for optax.adam and its kin set eps_root, for example "
            "optax.adam(learning_rate, eps_root=1e-8); in place of optax.clip_by_global_norm and "
            "of other transformations with a norm take hen_jax.meta.inner.clip_by_norm, or one "
            "whose norm is guarded likewise"
        )


def _zero_in_places(ones: Tree) -> Tree:
    """Four gradients, stacked: every other entry, every other leaf (two ways), and all are zero."""
    leaves, treedef = jax.tree.flatten(ones)
    stacked = [
        jnp.stack(
            [
                (jnp.arange(leaf.size) % 2).astype(leaf.dtype).reshape(leaf.shape),
                leaf * (number % 2),
                leaf * ((number + 1) % 2),
                leaf * 0,
            ]
        )
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, stacked)


def _zero_elsewhere(ones: Tree) -> Tree:
    """The parameters for those gradients: zero in the leaves where the gradient is not."""
    leaves, treedef = jax.tree.flatten(ones)
    stacked = [
        jnp.stack([leaf, leaf * ((number + 1) % 2), leaf * (number % 2), leaf])
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, stacked)


def require_pinned_host() -> None:
    """Raises `InputError` if the default device cannot reach pinned host memory."""
    device = jax.devices()[0]
    kinds = {memory.kind for memory in device.addressable_memories()}
    if "pinned_host" not in kinds:
        raise InputError(
            f"offload=True, but {device.platform} has no pinned host memory (it has "
            f"{sorted(kinds)}); set offload=False"
        )


def _small(leaf: Array) -> tuple[int, ...]:
    # Equal sizes stay equal and 1 stays 1, so whatever broadcast before broadcasts still.
    return tuple(min(size, 2) for size in jnp.shape(leaf))

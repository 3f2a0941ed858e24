"""What would give NaN, rounding or nonsense in a meta-gradient, refused before anything runs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Tree


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
    derivative at a zero gradient is NaN, and the meta-gradient with it. Exactly zero gradients
    are the rule, not the exception: a LoRA `a` while its `b` is still zero, an unused row of the
    embedding. So the transformation is differentiated once, on a tree of the same structure with
    at most two entries per axis, at a gradient that is zero in places.
    """
    with jax.ensure_compile_time_eval():
        probe = jax.tree.map(lambda leaf: jnp.ones(_small(leaf), leaf.dtype), theta)
        gradient = jax.tree.map(
            lambda ones: (jnp.arange(ones.size) % 2).astype(ones.dtype).reshape(ones.shape), probe
        )
        optimizer = transform(jax.tree.map(lambda leaf: jnp.full(_small(leaf), 0.5), eta))
        state = optimizer.init(probe)
        _, tangent = jax.jvp(
            lambda at: optimizer.update(at, state, probe)[0], (gradient,), (probe,)
        )
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tangent))
    if not finite:
        raise InputError(
            "the inner optimizer has no finite derivative where a gradient is zero, so the "
            "meta-gradient would be NaN; for optax.adam and its kin set eps_root, for example "
            "optax.adam(learning_rate, eps_root=1e-8)"
        )


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

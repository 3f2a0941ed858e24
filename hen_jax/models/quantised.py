"""A frozen base in eight bits: int8 kernels with one float32 scale per output channel.

Weights only: activations keep their dtype. The largest weight of a channel becomes 127, so a weight
is off by at most half of its channel's scale. Every int8 is exact in bfloat16, so nothing more is
lost where kernels are cast to it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int8

from hen_jax.core.trees import flatten, unflatten
from hen_jax.core.types import Array, Tree

SCALE = "kernel_scale"
"""The leaf beside each `kernel` of a quantised linear layer."""


class Quantised(NamedTuple):
    """`kernel * scale` stands for the weights."""

    kernel: Int8[Array, "*L I O"]
    scale: Float[Array, "*L O"]


class LogitError(NamedTuple):
    """How far quantised logits lie from the base's own."""

    largest: float
    root_mean_square: float
    spread: float  # standard deviation of the base's own logits, for comparison
    agreement: float  # share of positions with the same most likely token


def quantised(kernel: Float[Array, "*L I O"]) -> Quantised:
    """The nearest multiples of each channel's scale, which is its largest weight over 127.

    The channel `[1.27, -0.5, 0.004]` becomes `[127, -50, 0]` with scale 0.01.
    """
    wide = kernel.astype(jnp.float32)
    scale = jnp.abs(wide).max(axis=-2) / 127.0
    scale = jnp.where(scale == 0.0, 1.0, scale)
    return Quantised(jnp.round(wide / scale[..., None, :]).astype(jnp.int8), scale)


def quantised_base(base: Tree) -> Tree:
    """The base with the linear layers of its blocks in int8: what a decoder with
    `Execution(base_dtype="int8")` holds. Embedding, head, norms and biases stay as they are.
    """
    leaves = {}
    for path, leaf in flatten(base).items():
        if is_quantised(path):
            leaves[path], leaves[scale_path(path)] = quantised(leaf)
        else:
            leaves[path] = leaf
    return unflatten(leaves)


def is_quantised(path: str) -> bool:
    """Whether the leaf at `path` is a kernel that `quantised_base` rounds."""
    return path.startswith("blocks/") and path.endswith("/kernel")


def scale_path(path: str) -> str:
    """Where the scale of the kernel at `path` lies."""
    return path.removesuffix("kernel") + SCALE


def logit_error(
    logits: Callable[[Tree], Float[Array, "*B V"]],
    rounded: Callable[[Tree], Float[Array, "*B V"]],
    base: Tree,
) -> LogitError:
    """Compares `rounded(quantised_base(base))` with `logits(base)`, say over a batch's positions.

    Both functions are pure and are jitted here.
    """
    exact = jax.jit(logits)(base)
    off = jax.jit(lambda tree: rounded(quantised_base(tree)))(base)
    difference = off - exact
    return LogitError(
        float(jnp.abs(difference).max()),
        float(jnp.sqrt(jnp.mean(difference**2))),
        float(exact.std()),
        float((off.argmax(-1) == exact.argmax(-1)).mean()),
    )

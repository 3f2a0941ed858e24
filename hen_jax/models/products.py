"""The matrix products of linear layers and of attention, with their backward passes written out."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Float

from hen_jax.core.types import Array

PRODUCT = "product"
"""The name, for rematerialisation policies, of what is cheaper to keep than to compute again."""

KEPT = "attended"
"""The name of what a fused attention kernel must not run again for: output and softmax sums."""

_SHORT = 64
"""A sum of fewer terms, as over the rank of an adapter, is soon done again."""


@jax.custom_vjp
def matmul(x: Float[Array, "B T I"], kernel: Float[Array, "I O"]) -> Float[Array, "B T O"]:
    """`x @ kernel`, summed in float32 and rounded once to the dtype of `x`.

    The rule of its own keeps both products of the backward pass in the dtype of `x`, where the
    automatic one would mix the float32 of the sum with it, and forms the kernel's gradient so that
    only the narrower factor is transposed: for a low-rank factor that is a hundredth of the other.
    Second derivatives, forward over reverse included, go through; `jax.jvp` straight at it does
    not.
    """
    return _summed(x, kernel)


def turned_matmul(
    x: Float[Array, "*B I"], kernel: Float[Array, "O I"], dtype: DTypeLike | None = None
) -> Float[Array, "*B O"]:
    """`x @ kernel.T`, summed in float32, of a kernel that lies by its outputs; for decoding only.

    The result has the dtype of `x` where none is given.

    XLA CPU: with 8 rows of float32 it takes three quarters of the time of `x @ kernel`, with one
    row nine tenths; of bfloat16 it takes up to twice as long.
    """
    flat = x.reshape(-1, x.shape[-1])
    # Without the barrier XLA makes a product of rows of it again: with one row half as fast.
    out = jax.lax.optimization_barrier(
        jnp.matmul(kernel, flat.T, preferred_element_type=jnp.float32)
    ).T
    return out.astype(dtype or x.dtype).reshape(*x.shape[:-1], -1)


def _summed(x: Array, kernel: Array) -> Array:
    return float32_product(x, kernel).astype(x.dtype)


def float32_product(x: Float[Array, "*B I"], kernel: Float[Array, "I O"]) -> Float[Array, "*B O"]:
    """`x @ kernel`, summed in float32.

    XLA CPU: one row of bfloat16 takes longer than two (findings/jax_cpu_one_bfloat16_row.sh), so it
    is given a second.
    """
    if x.dtype == jnp.bfloat16 and x.ndim > 1 and x.size == x.shape[-1]:
        return float32_product(jnp.concatenate([x, x], axis=-2), kernel)[..., :1, :]
    return jnp.matmul(x, kernel, preferred_element_type=jnp.float32)


def save_for_backward(x: Array) -> Array:
    """`x`, by the name of `PRODUCT`."""
    return checkpoint_name(x, PRODUCT)


@jax.custom_vjp
def save_cotangent(x: Array) -> Array:
    """`x`, whose cotangent has the name of `PRODUCT`."""
    return x


save_cotangent.defvjp(lambda x: (x, None), lambda _, g: (save_for_backward(g),))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _summed(x, kernel), (x, kernel)


def _backward(given: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = given
    dx = jnp.einsum("BTO,IO->BTI", g, kernel, preferred_element_type=jnp.float32)
    if x.shape[-1] <= g.shape[-1]:
        dkernel = jnp.einsum("BTI,BTO->IO", x, g, preferred_element_type=jnp.float32)
    else:
        turned = jnp.einsum("BTO,BTI->OI", g, x, preferred_element_type=jnp.float32)
        # Without the barrier XLA's CPU back-end folds the transposition into the product, and has
        # no such product for bfloat16.
        dkernel = jax.lax.optimization_barrier(turned).T
    dx = dx.astype(x.dtype)
    return dx if kernel.shape[1] < _SHORT else save_for_backward(dx), dkernel.astype(kernel.dtype)


matmul.defvjp(_forward, _backward)


@jax.custom_vjp
def batched_matmul(
    x: Float[Array, "B K M C"], y: Float[Array, "B K C N"]
) -> Float[Array, "B K M N"]:
    """`x @ y` of every head in float32; the backward pass is as that of `matmul`."""
    return _of_heads(x, y)


def _of_heads(x: Array, y: Array) -> Array:
    return jnp.einsum("BKMC,BKCN->BKMN", x, y, preferred_element_type=jnp.float32)


def _heads_backward(given: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, y = given
    g = g.astype(x.dtype)
    dx = jnp.einsum("BKMN,BKCN->BKMC", g, y, preferred_element_type=jnp.float32)
    # A product that contracts the rows of both is slow on XLA's CPU back-end; the barrier keeps the
    # transposition out of it.
    if x.shape[-1] <= g.shape[-1]:
        dy = _of_heads(jax.lax.optimization_barrier(x.mT), g)
    else:
        dy = _of_heads(jax.lax.optimization_barrier(g.mT), x).mT
    return dx.astype(x.dtype), dy.astype(y.dtype)


batched_matmul.defvjp(lambda x, y: (_of_heads(x, y), (x, y)), _heads_backward)

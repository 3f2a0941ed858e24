"""The matrix product of a linear layer, with its backward pass written out."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from hen_jax.core.types import Array

PRODUCT = "product"
"""The name, for rematerialisation policies, of a product that is cheaper to keep than to repeat."""

SHORT = 64
"""A sum of fewer terms, as over the rank of an adapter, is soon done again."""


@jax.custom_vjp
def product(x: Float[Array, "B T I"], kernel: Float[Array, "I O"]) -> Float[Array, "B T O"]:
    """`x @ kernel`, summed in float32 and rounded once to the dtype of `x`.

    The rule of its own keeps both products of the backward pass in the dtype of `x`, where the
    automatic one would mix the float32 of the sum with it, and forms the kernel's gradient so that
    only the narrower factor is transposed: for a low-rank factor that is a hundredth of the other.
    Second derivatives, forward over reverse included, go through; `jax.jvp` straight at it does
    not.
    """
    return _summed(x, kernel)


def _summed(x: Array, kernel: Array) -> Array:
    y = jnp.matmul(x, kernel, preferred_element_type=jnp.float32).astype(x.dtype)
    return _named(y, kernel.shape[0])


def _named(y: Array, terms: int) -> Array:
    return y if terms < SHORT else checkpoint_name(y, PRODUCT)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _summed(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    dx = jnp.einsum("BTO,IO->BTI", g, kernel, preferred_element_type=jnp.float32)
    if x.shape[-1] <= g.shape[-1]:
        dkernel = jnp.einsum("BTI,BTO->IO", x, g, preferred_element_type=jnp.float32)
    else:
        turned = jnp.einsum("BTO,BTI->OI", g, x, preferred_element_type=jnp.float32)
        # Without the barrier XLA's CPU back-end folds the transposition into the product, and has
        # no such product for bfloat16.
        dkernel = jax.lax.optimization_barrier(turned).T
    return _named(dx.astype(x.dtype), kernel.shape[1]), dkernel.astype(kernel.dtype)


product.defvjp(_forward, _backward)

"""Parameters in bfloat16: computed with in float32, stored with stochastic rounding.

Next to a bfloat16 weight the neighbours lie 0.4 to 0.8 % away. An update smaller than half of that,
as most are, is lost when the sum is rounded to the nearest: the weight never moves. Rounded up or
down at random, with the probability that makes the mean right, small updates add up.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from hen_jax.core.errors import InputError
from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Tree


def widened(tree: Tree) -> Tree:
    """The tree with bfloat16 leaves in float32, exactly; others are as they were.

    Raises:
      InputError: a leaf is float16, whose range (6e-8 to 65504) no gradient respects.
    """

    def one(path: str, leaf: Array) -> Array:
        if leaf.dtype == jnp.float16:
            raise InputError(
                f"{path} is float16, which cannot be trained; give config.model.dtype='float32'"
            )
        return leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf

    return map_with_path(one, tree)


def apply_updates(params: Tree, updates: Tree, key: PRNGKeyArray) -> Tree:
    """`params + updates`, in the dtypes of `params`; bfloat16 leaves are rounded stochastically."""
    leaves, structure = jax.tree.flatten(optax.apply_updates(widened(params), updates))
    stored = jax.tree.leaves(params)
    return structure.unflatten(
        stochastically_rounded(new, jax.random.fold_in(key, number))
        if old.dtype == jnp.bfloat16
        else new
        for number, (new, old) in enumerate(zip(leaves, stored, strict=True))
    )


def stochastically_rounded(x: Float[Array, "..."], key: PRNGKeyArray) -> Float[Array, "..."]:
    """float32 -> bfloat16: one of the two neighbours, at random, so that the mean is `x`.

    A bfloat16 is the upper half of a float32. A random lower half is added and the lower half cut
    off: the carry comes with a probability of exactly `lower / 65536`, away from zero for both
    signs. `1 + 2**-9`, a quarter of the way from 1 to its neighbour `1 + 2**-7`, becomes that
    neighbour in a quarter of the draws. What bfloat16 holds exactly, infinity and NaN stay.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    cut = (bits + noise) & jnp.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(cut, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)

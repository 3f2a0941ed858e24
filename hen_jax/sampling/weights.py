"""A decoder's weights as decoding reads them fastest."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from hen_jax.core.types import Array, Tree
from hen_jax.models.decoder import Decoder, merge, unstack_layers
from hen_jax.models.dot_product import capped
from hen_jax.models.layers import Block


class Weights(NamedTuple):
    """A decoder with its arrays laid out for decoding; see `lay_out`."""

    model: Decoder
    blocks: tuple[Block, ...] | None  # None: the stacked blocks of `model` are scanned
    unembedding: Float[Array, "D V"] | None  # None: that of `model` is used as it lies


def lay_out(model: Decoder, unroll_layers: bool | None = None) -> Weights:
    """The model's weights as decoding reads them fastest.

    With `unroll_layers` each layer's weights become arrays of their own, once, and the layers are
    unrolled: XLA's CPU back-end copies the layer's slice of stacked weights at every token, which
    costs as much as using it. A tied unembedding is transposed once for a like reason. Elsewhere
    slices are read in place, and a scan compiles faster. None chooses by the default back-end.

    The cost is a copy of the blocks and of the unembedding. Jit it alone to pay it once for many
    generations; compose it with `generate` under one jit where weights change at every call.
    """
    if unroll_layers is None:
        unroll_layers = jax.default_backend() == "cpu"
    if not unroll_layers:
        return Weights(model, None, None)
    blocks = unstack_layers(model.blocks, model.config.layers)
    if model.head is not None:
        return Weights(model, blocks, None)
    vectors = model.embed.embedding[...].astype(model.execution.compute_dtype)
    # Without the barrier XLA folds the transposition into every product.
    return Weights(model, blocks, jax.lax.optimization_barrier(vectors.T))


def weights_from(structure: nnx.GraphDef) -> Callable[..., Weights]:
    """`weights(*trees)`: a decoder's leaves, in one tree or several, laid out for decoding."""

    def laid_out(*trees: Tree) -> Weights:
        return lay_out(merge(structure, *trees))

    return jax.jit(laid_out)


def next_logits(weights: Weights, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
    """Logits in float32."""
    if weights.unembedding is None:
        return weights.model.logits(hidden)
    raw = jnp.matmul(hidden, weights.unembedding, preferred_element_type=jnp.float32)
    return capped(raw, weights.model.config.final_softcap)

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
from hen_jax.models.layers import Block, Linear
from hen_jax.models.products import float32_product, turned_matmul


class Turned(NamedTuple):
    """A matrix that lies by its outputs."""

    kernel: Float[Array, "V D"]


class Weights(NamedTuple):
    """A decoder with its arrays laid out for decoding; see `lay_out`."""

    model: Decoder
    blocks: tuple[Block, ...] | None  # None: the stacked blocks of `model` are scanned
    unembedding: Float[Array, "D V"] | Turned | None  # None: that of `model` is used as it lies


def lay_out(model: Decoder, unroll_layers: bool | None = None) -> Weights:
    """The model's weights as decoding reads them fastest.

    With `unroll_layers` each layer's weights become arrays of their own, once, and the layers are
    unrolled: XLA's CPU back-end copies the layer's slice of stacked weights at every token, which
    costs as much as using it. Matrices are turned where `turned_matmul` is the faster product.
    Elsewhere slices are read in place, and a scan compiles faster. None chooses by the default
    back-end.

    The cost is a copy of the blocks and of the unembedding. Jit it alone to pay it once for many
    generations; compose it with what follows under one jit where weights change at every call.
    """
    if unroll_layers is None:
        unroll_layers = jax.default_backend() == "cpu"
    if not unroll_layers:
        return Weights(model, None, None)
    dtype = jnp.dtype(model.execution.compute_dtype)
    turned = dtype == jnp.float32
    blocks = unstack_layers(model.blocks, model.config.layers)
    for block in blocks:
        if turned:
            _turn(block)
        if model.layout is None or model.layout.mesh.size == 1:
            _join(block.attn.q, block.attn.k, block.attn.v)
            _join(block.mlp.gate, block.mlp.up)
    return Weights(model, blocks, _unembedding(model, turned))


def _turn(block: Block) -> None:
    for _, module in nnx.iter_modules(block):
        if isinstance(module, Linear):
            axes = module.kernel.get_metadata()["axes"]
            module.kernel = nnx.Param(module.kernel[...].T, axes=axes[::-1])
            module.turned = True


def _join(*layers: Linear) -> None:
    """One matrix in place of those of layers that read the same.

    XLA CPU: with one row 210 small products of a step take a fifth longer than 120 larger ones.
    """
    first = layers[0]
    kernels = [layer.kernel[...] for layer in layers]
    first.joined = nnx.Param(
        jnp.concatenate(kernels, axis=0 if first.turned else 1),
        axes=first.kernel.get_metadata()["axes"],
    )
    for layer in layers:
        del layer.kernel


def _unembedding(model: Decoder, turned: bool) -> Float[Array, "D V"] | Turned:
    dtype = model.execution.compute_dtype
    # Without the barrier XLA folds a transposition into every product.
    if model.head is None:
        vectors = model.embed.embedding[...].astype(dtype)
        return Turned(vectors) if turned else jax.lax.optimization_barrier(vectors.T)
    kernel = model.head.kernel[...].astype(dtype)
    return Turned(jax.lax.optimization_barrier(kernel.T)) if turned else kernel


def weights_from(structure: nnx.GraphDef) -> Callable[..., Weights]:
    """`weights(*trees)`: a decoder's leaves, in one tree or several, laid out for decoding."""

    def laid_out(*trees: Tree) -> Weights:
        return lay_out(merge(structure, *trees))

    return jax.jit(laid_out)


def next_logits(weights: Weights, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
    """Logits in float32."""
    match weights.unembedding:
        case None:
            return weights.model.logits(hidden)
        case Turned(kernel):
            raw = turned_matmul(hidden, kernel, jnp.float32)
        case kernel:
            raw = float32_product(hidden, kernel)
    return capped(raw, weights.model.config.final_softcap)

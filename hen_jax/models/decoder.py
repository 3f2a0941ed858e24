"""One decoder for every family: embedding, stacked blocks, norm, head.

Blocks are built with `jax.vmap` over keys, so every leaf of `blocks` has a leading layer dimension,
and run with `jax.lax.scan` over `jax.checkpoint`. After `split` all code sees nested dicts of
arrays; `merge` makes the module again inside a pure function.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int, PRNGKeyArray

from hen_jax.core.types import Array, Tree
from hen_jax.models.attention import attend, document_mask
from hen_jax.models.cache import Cache, LayerCache, attend_cached, filled, opened, written
from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
from hen_jax.models.layers import Block, RMSNorm
from hen_jax.models.rope import rope_angles


class Embedding(nnx.Module):
    """Token vectors, and the unembedding too where the head is tied."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig):
        vectors = jax.random.normal(key, (config.vocab_size, config.width)) * 0.02
        self.embedding = nnx.Param(vectors, axes=("vocab", "embed"))


class Head(nnx.Module):
    """The unembedding of a model whose head is not tied."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig):
        kernel = jax.random.normal(key, (config.width, config.vocab_size)) * 0.02
        self.kernel = nnx.Param(kernel, axes=("embed", "vocab"))


class Decoder(nnx.Module):
    """A decoder-only language model. Constructed under `jax.eval_shape` it costs nothing."""

    def __init__(
        self,
        key: PRNGKeyArray,
        config: DecoderConfig,
        lora: LoraConfig | None = None,
        execution: Execution = Execution(),
    ):
        embed_key, block_key, head_key = jax.random.split(key, 3)
        dtype = jnp.dtype(execution.compute_dtype)
        self.config, self.execution = config, execution
        self.embed = Embedding(embed_key, config)
        self.blocks = jax.vmap(lambda k: Block(k, config, lora, dtype))(
            jax.random.split(block_key, config.layers)
        )
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = nnx.data(None) if config.tied_head else Head(head_key, config)

    def embedded(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Token vectors in the compute dtype."""
        return self.embed.embedding[...][tokens].astype(self.execution.compute_dtype)

    def unembedding(self) -> Float[Array, "D V"]:
        """The matrix from hidden states to logits, in the compute dtype."""
        kernel = self.embed.embedding[...].T if self.head is None else self.head.kernel[...]
        return kernel.astype(self.execution.compute_dtype)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
    ) -> Float[Array, "B T D"]:
        """Final hidden states, after the last norm; documents of a row do not see each other."""
        angles = rope_angles(self.config, positions)
        mask = document_mask(segments)

        def block(x: Array, layer: Block) -> tuple[Array, None]:
            return layer(x, angles, lambda q, k, v: (attend(q, k, v, mask), None))

        step = rematerialised(block, self.execution)
        x, _ = jax.lax.scan(step, self.embedded(tokens), self.blocks)
        return self.norm(x)

    def prefill(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        slots: int,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """`hidden` of one prompt per row, and a cache of `slots >= T` slots that holds it.

        Rows end together: padding (segment 0) stands at their left, and is never seen again.
        """
        angles = rope_angles(self.config, positions)
        mask = document_mask(segments)

        def block(x: Array, layer: Block) -> tuple[Array, tuple[Array, Array]]:
            return layer(x, angles, lambda q, k, v: (attend(q, k, v, mask), (k, v)))

        x, (keys, values) = jax.lax.scan(block, self.embedded(tokens), self.blocks)
        return self.norm(x), filled(keys, values, segments > 0, slots)

    def decode(
        self,
        tokens: Int[Array, "B"],
        positions: Int[Array, "B"],
        cache: Cache,
        blocks: tuple[Block, ...] | None = None,
    ) -> tuple[Float[Array, "B D"], Cache]:
        """Final hidden states of the next token of each row, and the cache with it in it.

        With `blocks` (see `apart`) the layers are unrolled and `cache.layers` is a tuple too.
        """
        cache = opened(cache)
        angles = rope_angles(self.config, positions[:, None])
        x = self.embedded(tokens[:, None])
        run = self._decode_scanned if blocks is None else partial(_decode_unrolled, blocks)
        x, layers = run(x, angles, cache)
        return self.norm(x)[:, 0], Cache(layers, cache.valid, cache.slot + 1)

    def _decode_scanned(
        self, x: Float[Array, "B 1 D"], angles: Float[Array, "B 1 P"], cache: Cache
    ) -> tuple[Float[Array, "B 1 D"], LayerCache]:
        assert isinstance(cache.layers, LayerCache), "give the blocks, or a stacked cache"

        def step(carry: tuple[Array, LayerCache], layer: tuple[Array, Block]):
            (x, kept), (index, block) = carry, layer

            def look(q: Array, k: Array, v: Array) -> tuple[Array, LayerCache]:
                # The whole cache travels through the loop: as its output it would be rebuilt.
                now = written(kept, k, v, cache.slot, (index,))
                mine = jax.tree.map(lambda leaf: leaf[index], now)
                return attend_cached(q, mine, cache.valid), now

            return block(x, angles, look), None

        indices = jnp.arange(self.config.layers)
        (x, layers), _ = jax.lax.scan(step, (x, cache.layers), (indices, self.blocks))
        return x, layers

    def logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Logits in float32. Training uses `objectives.tokens`, which never builds all of them."""
        dtype = self.execution.compute_dtype
        if self.head is None:
            vectors = self.embed.embedding[...].astype(dtype)
            return jnp.einsum("...D,VD->...V", hidden, vectors, preferred_element_type=jnp.float32)
        kernel = self.head.kernel[...].astype(dtype)
        return jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)


def apart(stacked: Tree, layers: int) -> tuple[Tree, ...]:
    """The tree of each layer, from a tree stacked on a leading `L`."""

    def layer(index: int) -> Tree:
        return jax.tree.map(lambda leaf: leaf[index], stacked)

    return tuple(map(layer, range(layers)))


def _decode_unrolled(
    blocks: tuple[Block, ...],
    x: Float[Array, "B 1 D"],
    angles: Float[Array, "B 1 P"],
    cache: Cache,
) -> tuple[Float[Array, "B 1 D"], tuple[LayerCache, ...]]:
    assert not isinstance(cache.layers, LayerCache), "take the cache apart too"
    layers = []
    for block, kept in zip(blocks, cache.layers, strict=True):

        def look(q: Array, k: Array, v: Array, kept=kept) -> tuple[Array, LayerCache]:
            now = written(kept, k, v, cache.slot)
            return attend_cached(q, now, cache.valid), now

        x, now = block(x, angles, look)
        layers.append(now)
    return x, tuple(layers)


def rematerialised(block, execution: Execution):
    """`block` with the backward pass recomputing what `execution.remat` names."""
    match execution.remat:
        case "none":
            return block
        case "dots":
            keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            return jax.checkpoint(block, policy=keep, prevent_cse=False)
        case "block":
            return jax.checkpoint(block, prevent_cse=False)


class Split(NamedTuple):
    """A decoder taken apart: its static structure, the adapter's leaves, all other leaves."""

    graphdef: nnx.GraphDef
    adapter: Tree
    base: Tree


def split(model: Decoder) -> Split:
    """Takes a decoder apart into nested dicts of arrays; the adapter is `{}` without LoRA."""
    graphdef, adapter, base = nnx.split(model, nnx.LoRAParam, ...)
    return Split(graphdef, nnx.to_pure_dict(adapter), nnx.to_pure_dict(base))


def merge(graphdef: nnx.GraphDef, *trees: Tree) -> Decoder:
    """The decoder again, from its structure and any partition of its leaves."""
    return nnx.merge(graphdef, *trees)


def abstract(
    config: DecoderConfig, lora: LoraConfig | None = None, execution: Execution = Execution()
) -> Decoder:
    """A decoder of `jax.ShapeDtypeStruct`s: structure, shapes and axes, no memory."""
    return jax.eval_shape(lambda key: Decoder(key, config, lora, execution), jax.random.key(0))

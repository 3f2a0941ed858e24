"""One decoder for every family: embedding, stacked blocks, norm, head.

Blocks are built with `jax.vmap` over keys, so every leaf of `blocks` has a leading layer dimension,
and run with `jax.lax.scan` over `jax.checkpoint`. After `split` all code sees nested dicts of
arrays; `merge` makes the module again inside a pure function.
"""

import operator
from collections.abc import Callable
from functools import partial, reduce
from operator import itemgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from hen_jax.core.mesh import Layout, all_gather_fsdp, shard_rows
from hen_jax.core.types import SHARED, Array, RowLimits, Tree
from hen_jax.models.attention import PLAIN, attention
from hen_jax.models.config import DecoderConfig, Execution, LongRope, LoraConfig
from hen_jax.models.dot_product import capped
from hen_jax.models.heads import ScoreHead
from hen_jax.models.kinds import layer_kinds, select_kind, switch_kind
from hen_jax.models.layers import Block, Gate, RMSNorm
from hen_jax.models.packed_attention import astray, beyond
from hen_jax.models.products import save_cotangent
from hen_jax.models.remat import rematerialised
from hen_jax.models.rope import document_lengths, rope_angles


class Embedding(nnx.Module):
    """Token vectors, and the unembedding too where the head is tied."""

    def __init__(self, key: PRNGKeyArray, config: DecoderConfig):
        vectors = jax.random.normal(key, (config.vocab_size, config.width)) * 0.02
        self.embedding = nnx.Param(vectors, axes=("vocab", "embed"))


class _Head(nnx.Module):
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
        layout: Layout | None = None,
    ):
        embed_key, block_key, head_key = jax.random.split(key, 3)
        dtype = jnp.dtype(execution.compute_dtype)
        self.config, self.execution, self.layout = config, execution, layout
        self.embed = Embedding(embed_key, config)
        int8 = execution.base_dtype == "int8"
        self.blocks = jax.vmap(lambda k: Block(k, config, lora, dtype, int8))(
            jax.random.split(block_key, config.layers)
        )
        self.norm = RMSNorm(config.width, config)
        own_head = not config.tied_head and not config.score_head
        self.head = _Head(head_key, config) if own_head else nnx.data(None)
        self.score = ScoreHead(head_key, config) if config.score_head else nnx.data(None)

    def embedded(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Token vectors in the compute dtype."""
        vectors = self.embed.embedding[...][tokens].astype(self.execution.compute_dtype)
        vectors = shard_rows(vectors, self.layout)
        if not self.config.scaled_embedding:
            return vectors
        # The root is rounded to the compute dtype, as where the weights come from.
        return vectors * jnp.asarray(self.config.width**0.5, vectors.dtype)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        reach: RowLimits | None = None,
        gate: Gate | None = None,
        soft: Float[Array, "B P D"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states after the last norm, document by document; NaN for rows beyond `reach`.

        `gate` chooses among the adapters of several experts (see `adapters.experts`). `soft` takes
        the place of the vectors of each row's first `P` tokens, whatever these are.

        Rows with a `SHARED` prefix that some document would not see as in a row of its own are NaN
        too: under a window, a fused kernel, or rope angles that depend on a document's length.
        """
        x = self.norm(self.residual(tokens, positions, segments, reach, gate, soft))
        wrong = self._wrong(positions, segments, reach)
        return x if wrong is None else jnp.where(wrong, jnp.nan, x)

    def residual(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        reach: RowLimits | None = None,
        gate: Gate | None = None,
        soft: Float[Array, "B P D"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The residual stream behind the last block: `hidden` before the norm, and never NaN.

        What a decoder of the first layers gives here is `soft`, with `P = T`, for one of the rest.
        """
        block = self._block(positions, segments, reach, gate)
        step = rematerialised(block, self.execution)
        x = self.embedded(tokens)
        if soft is not None:
            x = x.at[:, : soft.shape[1]].set(soft.astype(x.dtype))
        return jax.lax.scan(step, x, (layer_kinds(self.config).of_layer, self.blocks))[0]

    def _wrong(
        self, positions: Int[Array, "B T"], segments: Int[Array, "B T"], reach: RowLimits | None
    ) -> Bool[Array, "B 1 1"] | None:
        """True for rows that `hidden` would get wrong; None where there can be none."""
        found = [] if reach is None else [beyond(segments, reach)]
        windows, T = layer_kinds(self.config).windows, segments.shape[1]
        short = [window for window in windows if window is not None and window < T]
        found += [astray(positions, segments, window) for window in short]
        if self.execution.attention not in PLAIN or self._by_length():
            found.append((segments == SHARED).any(axis=1)[:, None, None])
        return reduce(operator.or_, found) if found else None

    def _block(
        self,
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        reach: RowLimits | None,
        gate: Gate | None,
    ) -> Callable[[Array, tuple[Array | None, Block]], tuple[Array, None]]:
        """What the scan over layers does with `(kind, block)`."""
        lengths = document_lengths(positions, segments) if self._by_length() else None
        windows, config = layer_kinds(self.config).windows, self.config
        angles = self.angles(positions, lengths)
        attends = [
            attention(
                self.execution.attention,
                segments,
                window,
                config.attention_softcap,
                config.attention_scale,
                None if self.layout is None else self.layout.mesh,
                reach,
            )
            for window in windows
        ]

        def block(x: Array, layer: tuple[Array | None, Block]) -> tuple[Array, None]:
            kind, run = layer
            x, _ = self.whole(run)(
                x,
                select_kind(kind, angles),
                lambda q, k, v: (switch_kind(kind, attends, q, k, v), None),
                gate,
            )
            return shard_rows(x, self.layout), None

        return block

    def whole(self, block: Block) -> Block:
        """The block with its matrices gathered over `fsdp`, in the compute dtype."""
        if self.layout is None or self.layout.mesh.size == 1:
            return block

        def whole(variable: nnx.Variable) -> nnx.Variable:
            leaf = variable[...]
            if leaf.ndim > 1 and jnp.issubdtype(leaf.dtype, jnp.floating):
                leaf = leaf.astype(self.execution.compute_dtype)
            return variable.replace(
                all_gather_fsdp(leaf, variable.get_metadata()["axes"], self.layout)
            )

        graphdef, state = nnx.split(block)
        leaves = jax.tree.map(whole, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
        return nnx.merge(graphdef, leaves)

    def angles(self, positions: Int[Array, "B T"], lengths: Array | None) -> list[Array]:
        """Rope angles of each kind of layer."""
        return [
            rope_angles(self.config, positions, lengths, local=window is not None)
            for window in layer_kinds(self.config).windows
        ]

    def _by_length(self) -> bool:
        return isinstance(self.config.rope_scaling, LongRope)

    def logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Logits in float32. Training uses `objectives.tokens`, which never builds all of them."""
        return self._scores(hidden, self._vocabulary())

    def scorer(self) -> Callable[[Float[Array, "*B D"]], Float[Array, "*B V"]]:
        """`logits` for a loop over positions: the matrix is gathered once, before the loop."""
        axes = ("vocab", "embed") if self.head is None else ("embed", "vocab")
        return partial(self._scores, matrix=all_gather_fsdp(self._vocabulary(), axes, self.layout))

    def _vocabulary(self) -> Array:
        """The unembedding as it is stored: `[V, D]` where it is the embedding, else `[D, V]`."""
        matrix = self.embed.embedding[...] if self.head is None else self.head.kernel[...]
        return matrix.astype(self.execution.compute_dtype)

    def _scores(self, hidden: Array, matrix: Array) -> Array:
        terms = "...D,VD->...V" if self.head is None else "...D,DV->...V"
        raw = jnp.einsum(terms, save_cotangent(hidden), matrix, preferred_element_type=jnp.float32)
        return capped(raw, self.config.final_softcap)


def unstack_layers(stacked: Tree, layers: int) -> tuple[Tree, ...]:
    """The tree of each layer, from a tree stacked on a leading `L`."""
    return tuple(jax.tree.map(itemgetter(index), stacked) for index in range(layers))


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
    config: DecoderConfig,
    lora: LoraConfig | None = None,
    execution: Execution = Execution(),
    layout: Layout | None = None,
) -> Decoder:
    """A decoder of `jax.ShapeDtypeStruct`s: structure, shapes and axes, no memory."""
    return jax.eval_shape(
        lambda key: Decoder(key, config, lora, execution, layout), jax.random.key(0)
    )

"""The engine's state and the pure programs over it: prompts into slots, tokens out of them.

The state is a tree of arrays; weights are arguments. Shapes depend on `Slots` and on the sizes of
the arguments alone, so that rows come and go without a compilation.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int, UInt8, UInt32

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH, Layout
from hen_jax.core.types import Array
from hen_jax.models.cache import (
    Cache,
    LayerCache,
    Recent,
    empty_layers,
    empty_recent,
    take_rows,
    write_behind,
    write_rows,
)
from hen_jax.models.decoder import unstack_layers
from hen_jax.models.extend import New, extend
from hen_jax.sampling.logits import REPLY, Drawn, RowSampling, draw
from hen_jax.sampling.weights import Weights, next_logits


@dataclasses.dataclass(frozen=True)
class Slots:
    """What the programs are compiled for.

    Raises:
      InputError: no slot, no place, or prefill sizes that are not increasing.
    """

    rows: int = 8  # replies decoded at a time
    places: int = 1024  # tokens of one row: prompt and reply
    chunk: int = 16  # tokens of each row per call
    prefill: tuple[int, ...] = (16, 64, 256)  # tokens of a prompt per call, padded to one of these
    prefill_tokens: int = 256  # about as many at a time, over rows
    stops: int = 8  # stop tokens of a row, at most
    biases: int = 64  # biased tokens of a row, at most
    top: int = 0  # most probable tokens that are listed at each place
    support: bool = False  # whether it is kept which tokens could be drawn
    cache_dtype: str | None = None  # of keys and values; None: the compute dtype

    def __post_init__(self):
        sizes = self.rows, self.places, self.chunk, self.prefill_tokens, *self.prefill
        if min(sizes) < 1 or min(self.stops, self.biases, self.top) < 0:
            raise InputError(
                f"slots are {self}; rows, places, chunk and prefill must be at least 1"
            )
        if not self.prefill or list(self.prefill) != sorted(set(self.prefill)):
            raise InputError(f"prefill sizes are {self.prefill}; give some, increasing")

    @property
    def room(self) -> int:
        """Places of a row in the cache: a whole chunk or prefill fits behind the last token."""
        return self.places + max(self.chunk, *self.prefill)


class Rows(NamedTuple):
    """What each row is at; `B` slots."""

    last: Int[Array, "B"]  # the token that is read next
    drawn: Int[Array, "B"]  # tokens of the reply so far
    left: Int[Array, "B"]  # tokens that may still be drawn; 0: the row is done, or nobody's
    reach: Int[Array, "B"]  # the length that the row may come to
    stop: Int[Array, "B E"]  # -1: none
    seed: UInt32[Array, "B"]
    sampling: RowSampling
    adapter: Int[Array, "B"]


class State(NamedTuple):
    """All that decoding remembers; to be donated."""

    cache: Cache
    marks: UInt8[Array, "B V"]  # which tokens stand in the prompt and the reply
    rows: Rows


class Chunk(NamedTuple):
    """What a call of `step` drew: of row `b` the first `counts[b]` of `W` tokens."""

    tokens: Int[Array, "B W"]
    log_probs: Float[Array, "B W"]
    sampling_log_probs: Float[Array, "B W"]
    counts: Int[Array, "B"]
    support: UInt8[Array, "B W Q"] | None
    top_tokens: Int[Array, "B W n"] | None
    top_log_probs: Float[Array, "B W n"] | None
    top_sampling_log_probs: Float[Array, "B W n"] | None


def init_state(weights: Weights, slots: Slots) -> State:
    """Empty slots; `weights` may be abstract."""
    model, B = weights.model, slots.rows
    dtype = jnp.dtype(slots.cache_dtype or model.execution.compute_dtype)
    layers = empty_layers(model.config, B, slots.room, dtype, weights.blocks is not None)
    count = jnp.zeros(B, jnp.int32)
    none, some = jnp.zeros(B, jnp.float32), jnp.ones(B, jnp.float32)
    sampling = RowSampling(
        none,
        count,
        some,
        none,
        some,
        none,
        jnp.full((B, slots.biases), jnp.iinfo(jnp.int32).max, jnp.int32),
        jnp.zeros((B, slots.biases), jnp.float32),
    )
    stop = jnp.full((B, slots.stops), -1, jnp.int32)
    rows = Rows(count, count, count, count, stop, count.astype(jnp.uint32), sampling, count)
    marks = jnp.zeros((B, model.config.vocab_size), jnp.uint8)
    return State(Cache(layers, count), marks, rows)


def admit(
    state: State,
    slot: Int[Array, "P"],
    rows: Rows,
    lengths: Int[Array, "P"],
    marks: UInt8[Array, "P V"],
) -> State:
    """Puts requests into slots whose cache holds the first `lengths` tokens of their prompts.

    A slot of `B` or more is nobody's: that entry is dropped.
    """

    def put(old: Array, new: Array) -> Array:
        return old.at[slot].set(new, mode="drop")

    cache = state.cache._replace(lengths=put(state.cache.lengths, lengths))
    return State(cache, put(state.marks, marks), jax.tree.map(put, state.rows, rows))


def release(state: State, slot: Int[Array, "P"]) -> State:
    """Ends the replies in these slots; what their cache holds stays readable."""
    left = state.rows.left.at[slot].set(0, mode="drop")
    return state._replace(rows=state.rows._replace(left=left))


class Piece(NamedTuple):
    """Up to `C` tokens of each of `P` prompts, padded at the right."""

    tokens: Int[Array, "P C"]
    slot: Int[Array, "P"]  # `B` or more: nobody's
    start: Int[Array, "P"]  # tokens of the prompt before these
    reach: Int[Array, "P"]  # as in `Rows`


def prefill(weights: Weights, state: State, piece: Piece, resumed: bool) -> State:
    """Reads a piece of each prompt into the cache. `resumed` (static): something stands before it.

    Rows are not made active, nor their lengths changed: see `admit`.
    """
    P, C = piece.tokens.shape
    model, kept = weights.model, state.cache.layers
    mine = _stacked(take_rows(kept, jnp.minimum(piece.slot, state.rows.left.shape[0] - 1)))
    positions = piece.start[:, None] + jnp.arange(C)
    new = New(piece.tokens, positions, piece.reach)
    cache = Cache(mine, piece.start) if resumed else None
    _, recent = extend(model, None, new, cache, empty_recent(mine, P, C), jnp.int32(0))
    written = recent.layers
    if not isinstance(kept, LayerCache):
        written = unstack_layers(written, len(kept))
    layers = write_rows(kept, written, piece.slot, piece.start)
    return state._replace(cache=state.cache._replace(layers=layers))


def _stacked(layers: LayerCache | tuple[LayerCache, ...]) -> LayerCache:
    if isinstance(layers, LayerCache):
        return layers
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def copy_rows(state: State, source: Int[Array, "P"], target: Int[Array, "P"]) -> State:
    """What the cache holds for `source` rows, for `target` rows too."""
    layers = state.cache.layers
    copied = write_rows(layers, take_rows(layers, source), target, jnp.zeros_like(target))
    return state._replace(cache=state.cache._replace(layers=copied))


class _Progress(NamedTuple):
    step: Int[Array, ""]
    recent: Recent
    marks: UInt8[Array, "B V"]
    rows: Rows
    chunk: Chunk


def step(
    weights: Weights, state: State, slots: Slots, ended: Int[Array, ""]
) -> tuple[State, Chunk]:
    """Draws up to `slots.chunk` tokens of every active row; `slots` is static.

    It returns earlier once `ended` rows are done that were not, or all are.
    """
    before = state.rows.left > 0
    wanted = jnp.minimum(ended, before.sum())

    def unfinished(now: _Progress) -> Bool[Array, ""]:
        over = before & (now.rows.left == 0)
        return (now.step < slots.chunk) & before.any() & (over.sum() < wanted)

    def advance(now: _Progress) -> _Progress:
        rows = now.rows
        positions = state.cache.lengths + now.chunk.counts
        new = New(rows.last[:, None], positions[:, None], rows.reach)
        hidden, recent = extend(
            weights.model, weights.blocks, new, state.cache, now.recent, now.step
        )
        logits = next_logits(weights, hidden[:, 0])
        drawn = draw(logits, rows.sampling, now.marks, _uniforms(rows))
        return _append(now._replace(recent=recent), logits, drawn)

    begun = _Progress(
        jnp.int32(0),
        empty_recent(state.cache.layers, slots.rows, slots.chunk),
        state.marks,
        state.rows,
        _empty_chunk(state.marks.shape[1], slots),
    )
    done = jax.lax.while_loop(unfinished, advance, begun)
    layers = write_behind(state.cache.layers, done.recent.layers, state.cache.lengths)
    lengths = state.cache.lengths + done.chunk.counts
    return State(Cache(layers, lengths), done.marks, done.rows), done.chunk


def _uniforms(rows: Rows) -> Float[Array, "B 2"]:
    """Two uniform numbers per row, from its seed and its place in the reply alone."""

    def of_row(seed: Array, drawn: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), drawn), (2,))

    return jax.vmap(of_row)(rows.seed, rows.drawn)


def _empty_chunk(V: int, slots: Slots) -> Chunk:
    B, W, n = slots.rows, slots.chunk, slots.top
    tokens, numbers = jnp.zeros((B, W), jnp.int32), jnp.zeros((B, W), jnp.float32)
    support = jnp.zeros((B, W, -(-V // 8)), jnp.uint8) if slots.support else None
    top = jnp.zeros((B, W, n), jnp.float32) if n else None
    chosen = jnp.zeros((B, W, n), jnp.int32) if n else None
    return Chunk(tokens, numbers, numbers, jnp.zeros(B, jnp.int32), support, chosen, top, top)


def _append(now: _Progress, logits: Float[Array, "B V"], drawn: Drawn) -> _Progress:
    """Writes what was drawn, and ends the rows that are done with it."""
    rows, active = now.rows, now.rows.left > 0
    chunk = _written(now.chunk, logits, drawn, now.step, active)
    stopped = (drawn.tokens[:, None] == rows.stop).any(axis=1)
    left = jnp.where(active & ~stopped, rows.left - 1, 0)
    rows = rows._replace(
        last=jnp.where(active, drawn.tokens, rows.last), drawn=rows.drawn + active, left=left
    )
    every = jnp.arange(active.shape[0])
    marked = now.marks[every, drawn.tokens] | jnp.where(active, REPLY, 0).astype(jnp.uint8)
    marks = now.marks.at[every, drawn.tokens].set(marked, unique_indices=True)
    return _Progress(now.step + 1, now.recent, marks, rows, chunk)


def _written(
    chunk: Chunk,
    logits: Float[Array, "B V"],
    drawn: Drawn,
    at: Int[Array, ""],
    active: Bool[Array, "B"],
) -> Chunk:
    def put(buffer: Array, column: Array) -> Array:
        column = column[:, None].astype(buffer.dtype)
        return jax.lax.dynamic_update_slice_in_dim(buffer, column, at, axis=1)

    filled = chunk._replace(
        tokens=put(chunk.tokens, drawn.tokens),
        log_probs=put(chunk.log_probs, drawn.log_probs),
        sampling_log_probs=put(chunk.sampling_log_probs, drawn.sampling_log_probs),
        counts=chunk.counts + active,
    )
    if chunk.support is not None:
        bits = jnp.packbits(jnp.isfinite(drawn.shaped), axis=-1)
        filled = filled._replace(support=put(chunk.support, bits))
    if chunk.top_tokens is None:
        return filled
    raw, chosen = jax.lax.top_k(logits, chunk.top_tokens.shape[-1])
    shaped = jnp.take_along_axis(drawn.shaped, chosen, axis=-1)
    return filled._replace(
        top_tokens=put(chunk.top_tokens, chosen),
        top_log_probs=put(chunk.top_log_probs, raw - _total(logits)),
        top_sampling_log_probs=put(chunk.top_sampling_log_probs, shaped - _total(drawn.shaped)),
    )


def _total(logits: Float[Array, "B V"]) -> Float[Array, "B 1"]:
    return jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def state_shardings(state: State, layout: Layout) -> State:
    """Where a state lives: rows over `data` and `fsdp`, the heads of the cache over `tensor`."""
    mesh = layout.mesh

    def over(axis: str | tuple[str, ...], size: int) -> str | tuple[str, ...] | None:
        parts = math.prod(mesh.shape[one] for one in ((axis,) if isinstance(axis, str) else axis))
        return axis if size % parts == 0 else None

    def rows(leaf: Array) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(over(BATCH, leaf.shape[0])))

    def heads(leaf: Array) -> NamedSharding:
        *stack, B, K, _, _ = leaf.shape
        places = [None] * len(stack)
        return NamedSharding(mesh, PartitionSpec(*places, over(BATCH, B), over("tensor", K)))

    shardings = jax.tree.map(rows, state)
    layers = jax.tree.map(heads, state.cache.layers)
    return shardings._replace(cache=shardings.cache._replace(layers=layers))

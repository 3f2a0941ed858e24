"""Tokens out of slots: a chunk of steps for all rows in one program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, UInt8, UInt32

from hen_jax.core.types import Array
from hen_jax.models.cache import Cache, Recent, empty_recent, first_places, write_behind
from hen_jax.models.extend import New, extend
from hen_jax.sampling.logits import REPLY, Drawn, draw
from hen_jax.sampling.slots import DecodeState, Rows, Slots, gate_of
from hen_jax.sampling.weights import Weights, next_logits


class StepTokens(NamedTuple):
    """What is told of tokens that were drawn; log-probabilities in nats."""

    tokens: Int[Array, "*B"]
    log_probs: Float[Array, "*B"]  # of the model itself
    sampling_log_probs: Float[Array, "*B"]  # of what the token was drawn from
    support: UInt8[Array, "*B Q"] | None  # which could be drawn, a bit each; None: not kept
    top_tokens: Int[Array, "*B n"] | None  # the most probable ones; None: not asked for
    top_log_probs: Float[Array, "*B n"] | None
    top_sampling_log_probs: Float[Array, "*B n"] | None


class Chunk(NamedTuple):
    """What a call of `step` drew: of row `b` the first `counts[b]` of `W` tokens."""

    drawn: StepTokens  # [B, W]
    counts: Int[Array, "B"]


class _Progress(NamedTuple):
    step: Int[Array, ""]
    recent: Recent
    marks: UInt8[Array, "B V"]
    rows: Rows
    chunk: Chunk


def step_drawing(
    weights: Weights,
    state: DecodeState,
    slots: Slots,
    ended: Int[Array, ""],
    reads: int | None = None,
) -> tuple[DecodeState, Chunk]:
    """Draws up to `slots.chunk` tokens of every active row; `slots` and `reads` are static.

    It returns earlier once `ended` rows are done that were not, or all are. `reads` is how many
    places of the cache are looked at, at least as many as any active row has filled; None: all.
    """
    kept = state.cache if reads is None else first_places(state.cache, reads)
    before = state.rows.left > 0
    wanted = jnp.minimum(ended, before.sum())

    def unfinished(now: _Progress) -> Bool[Array, ""]:
        over = before & (now.rows.left == 0)
        return (now.step < slots.chunk) & before.any() & (over.sum() < wanted)

    def advance(now: _Progress) -> _Progress:
        rows = now.rows
        positions = state.cache.lengths + now.chunk.counts
        new = New(rows.last[:, None], positions[:, None], rows.reach, gate_of(rows.gate))
        hidden, recent = extend(weights.model, weights.blocks, new, kept, now.recent, now.step)
        logits = next_logits(weights, hidden[:, 0])
        drawn = draw(logits, rows.sampling, now.marks, uniforms(rows.seed, rows.drawn))
        return _append(now._replace(recent=recent), tokens_of(logits, drawn, slots))

    begun = _Progress(
        jnp.int32(0),
        empty_recent(state.cache.layers, slots.rows, slots.chunk),
        state.marks,
        state.rows,
        empty_chunk(state.marks.shape[1], slots.chunk, slots),
    )
    done = jax.lax.while_loop(unfinished, advance, begun)
    layers = write_behind(state.cache.layers, done.recent.layers, state.cache.lengths)
    lengths = state.cache.lengths + done.chunk.counts
    return DecodeState(Cache(layers, lengths), done.marks, done.rows), done.chunk


def uniforms(seed: UInt32[Array, "B"], place: Int[Array, "B"]) -> Float[Array, "B 2"]:
    """Two uniform numbers per row, from its seed and a place in its reply alone."""

    def of_row(seed: Array, place: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), place), (2,))

    return jax.vmap(of_row)(seed, place)


def empty_chunk(vocabulary: int, places: int, slots: Slots) -> Chunk:
    """Room for `places` tokens of each row."""
    leading, n = (slots.rows, places), slots.top
    ids, numbers = jnp.zeros(leading, jnp.int32), jnp.zeros(leading, jnp.float32)
    bits = jnp.zeros((*leading, -(-vocabulary // 8)), jnp.uint8) if slots.support else None
    chosen = jnp.zeros((*leading, n), jnp.int32) if n else None
    top = jnp.zeros((*leading, n), jnp.float32) if n else None
    drawn = StepTokens(ids, numbers, numbers, bits, chosen, top, top)
    return Chunk(drawn, jnp.zeros(slots.rows, jnp.int32))


def tokens_of(logits: Float[Array, "B V"], drawn: Drawn, slots: Slots) -> StepTokens:
    """What is told of a token per row."""
    told = StepTokens(
        drawn.tokens, drawn.log_probs, drawn.sampling_log_probs, None, None, None, None
    )
    if slots.support:
        told = told._replace(support=jnp.packbits(jnp.isfinite(drawn.shaped), axis=-1))
    if not slots.top:
        return told
    raw, chosen = jax.lax.top_k(logits, slots.top)
    shaped = jnp.take_along_axis(drawn.shaped, chosen, axis=-1)
    return told._replace(
        top_tokens=chosen,
        top_log_probs=raw - _total(logits),
        top_sampling_log_probs=shaped - _total(drawn.shaped),
    )


def _total(logits: Float[Array, "B V"]) -> Float[Array, "B 1"]:
    return jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def _append(now: _Progress, told: StepTokens) -> _Progress:
    """Writes a token per row, and ends the rows that are done with it."""
    rows, active = now.rows, now.rows.left > 0

    def put(buffer: Array, column: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(buffer, column[:, None], now.step, axis=1)

    drawn = jax.tree.map(put, now.chunk.drawn, told)
    stopped = (told.tokens[:, None] == rows.stop).any(axis=1)
    left = jnp.where(active & ~stopped, rows.left - 1, 0)
    rows = rows._replace(
        last=jnp.where(active, told.tokens, rows.last), drawn=rows.drawn + active, left=left
    )
    marks = _marked(now.marks, told.tokens, active)
    return _Progress(now.step + 1, now.recent, marks, rows, Chunk(drawn, now.chunk.counts + active))


def _marked(
    marks: UInt8[Array, "B V"], tokens: Int[Array, "B"], active: Bool[Array, "B"]
) -> UInt8[Array, "B V"]:
    """The marks with a token of each active row's reply."""
    every = jnp.arange(tokens.shape[0])
    now = marks[every, tokens] | jnp.where(active, REPLY, 0).astype(jnp.uint8)
    return marks.at[every, tokens].set(now, unique_indices=True)

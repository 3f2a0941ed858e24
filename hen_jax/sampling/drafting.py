"""Speculation without a second model: what followed the last words before is guessed to follow now.

Guesses are looked up in the prompt, in the reply so far and in the hints of the request (earlier
replies to the same record, say), and checked together in one step. At each place a token is drawn
as it would have been without: from the logits there, with the uniform numbers of that place. A
guess is right if it is that token. So a reply is the same token for token, to rounding; the chance
that a guess is kept is its probability, as with the rejection rule of Leviathan et al. (2023) for a
draft that is certain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hen_jax.core.types import Array
from hen_jax.models.cache import (
    NOWHERE,
    Cache,
    Recent,
    compacted,
    empty_recent,
    first_places,
    write_behind,
)
from hen_jax.models.extend import New, extend
from hen_jax.sampling.drawing import Chunk, StepTokens, empty_chunk, tokens_of, uniforms
from hen_jax.sampling.logits import REPLY, draw
from hen_jax.sampling.slots import DecodeState, Rows, Slots, gate_of
from hen_jax.sampling.weights import Weights, next_logits

LONGEST, SHORTEST = 3, 2
"""Tokens that are looked up: the last three, or else the last two."""

BETWEEN = -1
"""Stands between the texts of a history: no token is like it."""


class History(NamedTuple):
    """What guesses of each row are looked up in; its reply stands at the end."""

    tokens: Int[Array, "B Q"]
    filled: Int[Array, "B"]


class _Progress(NamedTuple):
    step: Int[Array, ""]
    recent: Recent
    marks: UInt8[Array, "B V"]
    rows: Rows
    chunk: Chunk
    history: History


class _Checked(NamedTuple):
    """What a step drew at `T` places of each row, of which the first `counts` stand."""

    told: StepTokens  # [B, T]
    counts: Int[Array, "B"]
    ended: Bool[Array, "B"]  # by a stop token


def step_drafting(
    weights: Weights,
    state: DecodeState,
    history: History,
    slots: Slots,
    ended: Int[Array, ""],
    reads: int | None = None,
) -> tuple[DecodeState, Chunk, Int[Array, ""]]:
    """`drawing.step_drawing` with `slots.draft` guesses a step; also how many steps it made."""
    kept = state.cache if reads is None else first_places(state.cache, reads)
    before, T = state.rows.left > 0, slots.draft + 1
    wanted = jnp.minimum(ended, before.sum())

    def unfinished(now: _Progress) -> Bool[Array, ""]:
        over = before & (now.rows.left == 0)
        return (now.step < slots.chunk) & before.any() & (over.sum() < wanted)

    def advance(now: _Progress) -> _Progress:
        guesses = jnp.where(_plain(now.rows)[:, None], guess(now.history, slots.draft), BETWEEN)
        tokens = jnp.concatenate([now.rows.last[:, None], jnp.maximum(guesses, 0)], axis=1)
        positions = (state.cache.lengths + now.chunk.counts)[:, None] + jnp.arange(T)
        new = New(tokens, positions, now.rows.reach, gate_of(now.rows.gate))
        hidden, recent = extend(weights.model, weights.blocks, new, kept, now.recent, now.step * T)
        found = _checked(next_logits(weights, hidden), guesses, now.rows, now.marks, slots)
        return _append(now._replace(recent=recent), positions, found)

    begun = _Progress(
        jnp.int32(0),
        empty_recent(state.cache.layers, slots.rows, slots.chunk * T),
        state.marks,
        state.rows,
        empty_chunk(state.marks.shape[1], slots.chunk * T, slots),
        history,
    )
    done = jax.lax.while_loop(unfinished, advance, begun)
    layers = write_behind(state.cache.layers, compacted(done.recent), state.cache.lengths)
    lengths = state.cache.lengths + done.chunk.counts
    return DecodeState(Cache(layers, lengths), done.marks, done.rows), done.chunk, done.step


def _plain(rows: Rows) -> Bool[Array, "B"]:
    """Rows without penalties, which would be others at every place of a guess."""
    return (rows.sampling.repetition_penalty == 1) & (rows.sampling.presence_penalty == 0)


def guess(history: History, count: int) -> Int[Array, "B count"]:
    """What followed the latest place where a row's last words stood before; `BETWEEN`: nothing.

    After `5 6 7 8 5 6` the guesses are `7 8 5`, and then nothing is known.
    """
    tokens, filled = history
    Q = tokens.shape[1]
    place, end = jnp.arange(Q), filled[:, None] - 1
    same, length = place < end, jnp.zeros(tokens.shape, jnp.int32)
    for back in range(LONGEST):
        shifted = jnp.pad(tokens, [(0, 0), (back, 0)], constant_values=BETWEEN)[:, :Q]
        last = jnp.take_along_axis(tokens, jnp.maximum(end - back, 0), axis=1)
        same = same & (shifted == last) & (last != BETWEEN) & (end >= back)
        length = length + same
    score = jnp.where(length >= SHORTEST, length * Q + place, -1)
    after = score.argmax(axis=1)[:, None] + 1 + jnp.arange(count)
    known = (score.max(axis=1) >= 0)[:, None] & (after <= end)
    return jnp.where(known, jnp.take_along_axis(tokens, jnp.minimum(after, Q - 1), 1), BETWEEN)


def _checked(
    logits: Float[Array, "B T V"],
    guesses: Int[Array, "B d"],
    rows: Rows,
    marks: UInt8[Array, "B V"],
    slots: Slots,
) -> _Checked:
    """Draws at every place, and keeps what stands behind guesses that were right."""
    B, T, V = logits.shape
    flat = logits.reshape(-1, V)
    of_places, all_marks = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, T, axis=0), (rows.sampling, marks)
    )
    places = (rows.drawn[:, None] + jnp.arange(T)).reshape(-1)
    drawn = draw(flat, of_places, all_marks, uniforms(jnp.repeat(rows.seed, T), places))
    told = jax.tree.map(
        lambda leaf: leaf.reshape(B, T, *leaf.shape[1:]), tokens_of(flat, drawn, slots)
    )
    right = jnp.cumprod(told.tokens[:, :-1] == guesses, axis=1).sum(axis=1)
    stops = (told.tokens[:, :, None] == rows.stop[:, None]).any(axis=2)
    first_stop = jnp.where(stops.any(axis=1), stops.argmax(axis=1), T)
    counts = jnp.minimum(jnp.minimum(right, first_stop) + 1, rows.left)
    return _Checked(told, counts, first_stop < counts)


def _append(now: _Progress, positions: Int[Array, "B T"], found: _Checked) -> _Progress:
    told, counts, ended = found
    rows, (B, T) = now.rows, positions.shape
    keeps = jnp.arange(T) < counts[:, None]
    every = jnp.arange(B)[:, None]

    def put(buffer: Array, new: Array, at: Int[Array, "B"]) -> Array:
        place = jnp.where(keeps, at[:, None] + jnp.arange(T), buffer.shape[1])
        return buffer.at[every, place].set(new, mode="drop")

    drawn = jax.tree.map(lambda a, b: put(a, b, now.chunk.counts), now.chunk.drawn, told)
    seen = jax.lax.dynamic_update_slice_in_dim(
        now.recent.positions, jnp.where(keeps, positions, NOWHERE), now.step * T, axis=1
    )
    history = History(
        put(now.history.tokens, told.tokens, now.history.filled),
        jnp.minimum(now.history.filled + counts, now.history.tokens.shape[1]),
    )
    tokens = jnp.where(keeps, told.tokens, now.marks.shape[1])
    replied = now.marks[every, told.tokens] | jnp.uint8(REPLY)
    marks = now.marks.at[every, tokens].set(replied, mode="drop")
    final = jnp.take_along_axis(told.tokens, jnp.maximum(counts - 1, 0)[:, None], axis=1)[:, 0]
    rows = rows._replace(
        last=jnp.where(counts > 0, final, rows.last),
        drawn=rows.drawn + counts,
        left=jnp.where(ended, 0, rows.left - counts),
    )
    chunk = Chunk(drawn, now.chunk.counts + counts)
    return _Progress(now.step + 1, now.recent._replace(positions=seen), marks, rows, chunk, history)


def history_of(texts: Sequence[Sequence[Sequence[int]]], length: int) -> History:
    """Histories of rows from the texts of each, the prompt with its reply last: numpy arrays.

    Of what is longer than `length` the end is kept.
    """
    tokens, filled = (
        np.full((len(texts), length), BETWEEN, np.int32),
        np.zeros(len(texts), np.int32),
    )
    for row, parts in enumerate(texts):
        whole = [token for part in parts for token in (BETWEEN, *part)][-length:]
        tokens[row, : len(whole)], filled[row] = whole, len(whole)
    return History(tokens, filled)


class DraftPace(NamedTuple):
    """Seconds of a step and tokens that it brought a row, of the chunks that count."""

    seconds: float
    gained: float


class Worth(NamedTuple):
    """What chunks with and without guesses brought; see `pays`."""

    paces: dict[bool, DraftPace]  # by whether there were guesses
    compiled: frozenset[bool]  # the first chunk of a program waits for its compilation: not counted
    since: int  # chunks since the last with guesses


UNKNOWN = Worth({}, frozenset(), 0)

RETRY = 32
"""Chunks after which guesses are tried again that did not pay."""


def pays(worth: Worth) -> bool:
    """Whether the next chunk guesses: where that brings more tokens a second, or is not known yet.

    Of plain steps of 20 ms and ones of 30 ms that bring 1.8 tokens the latter pay.
    """
    plain, guessing = worth.paces.get(False), worth.paces.get(True)
    if plain is None or guessing is None:
        return plain is not None
    better = guessing.gained / guessing.seconds > plain.gained / plain.seconds
    return better or worth.since >= RETRY


def noted(worth: Worth, guessed: bool, pace: DraftPace) -> Worth:
    """The record after one more chunk; paces are means that forget by a quarter."""
    since = 0 if guessed else worth.since + 1
    if guessed not in worth.compiled:
        return Worth(worth.paces, worth.compiled | {guessed}, since)
    before = worth.paces.get(guessed, pace)
    mixed = DraftPace(*(0.75 * old + 0.25 * new for old, new in zip(before, pace, strict=True)))
    return Worth(worth.paces | {guessed: mixed}, worth.compiled, since)

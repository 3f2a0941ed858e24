"""Generation: prefill, then a `lax.while_loop` over a static cache until every row has stopped.

Everything here is pure and shape-static: one compilation serves all prompts of one bucket. Prefill
and decode are separate, so that several rollouts of a prompt can start from one prefill.
"""

import bisect
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Key, PRNGKeyArray

from hen_jax.core import types
from hen_jax.core.errors import InputError
from hen_jax.core.types import Array
from hen_jax.models import cache
from hen_jax.models.cache import Cache
from hen_jax.models.decoder import Decoder, unstack_layers
from hen_jax.models.dot_product import capped
from hen_jax.models.layers import Block
from hen_jax.sampling.logits import Sampling, draw

BUCKETS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Lengths that prompts are padded to: one compilation each. Beyond the last: its eighths."""


@dataclasses.dataclass(frozen=True)
class Generating:
    """What a generation does besides its inputs; static, so each distinct one compiles anew."""

    max_new_tokens: int
    stop: tuple[int, ...]  # a row ends with the first of these tokens it draws
    pad: int = 0  # what fills a row after its end
    sampling: Sampling = dataclasses.field(default_factory=Sampling)

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; give 1 or more")


class Prompts(NamedTuple):
    """Prompts of different lengths, padded at the left so that they end together."""

    tokens: types.Array  # [B, T] int32
    lengths: types.Array  # [B] int32


class Weights(NamedTuple):
    """A decoder with its arrays laid out for decoding; see `lay_out`."""

    model: Decoder
    blocks: tuple[Block, ...] | None  # None: the stacked blocks of `model` are scanned
    unembedding: Float[Array, "D V"] | None  # None: that of `model` is used as it lies


class Start(NamedTuple):
    """Where decoding starts: after the prompts, before the first new token."""

    cache: Cache
    logits: Float[Array, "B V"]  # of the first new token
    positions: Int[Array, "B"]  # of the first new token


class Generation(NamedTuple):
    """New tokens of each row, its stop token included, then `pad`; log-probabilities in nats.

    Past a row's length all its log-probabilities are 0. `sampling.logits.Drawn` says which is
    which.
    """

    tokens: Int[Array, "B M"]
    log_probs: Float[Array, "B M"]
    sampling_log_probs: Float[Array, "B M"]
    lengths: Int[Array, "B"]


def pad_prompts(
    prompts: Sequence[Sequence[int]], buckets: Sequence[int] = BUCKETS, pad: int = 0
) -> Prompts:
    """Pads token lists at the left to the smallest bucket that holds the longest.

    `pad_prompts([[5, 6], [7]], buckets=(4,)).tokens` is `[[0, 0, 5, 6], [0, 0, 0, 7]]`. What is
    longer than every bucket is padded to a multiple of an eighth of the largest: 8,193 to 9,216.

    Raises:
      InputError: no prompt, or an empty one.
    """
    lengths = [len(prompt) for prompt in prompts]
    if min(lengths, default=0) == 0:
        raise InputError("a prompt holds no token; give at least one")
    tokens = np.full((len(lengths), _padded(max(lengths), sorted(buckets))), pad, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[-len(prompt) :] = prompt
    return Prompts(tokens, np.asarray(lengths, np.int32))


def _padded(length: int, buckets: Sequence[int]) -> int:
    place = bisect.bisect_left(buckets, length)
    if place < len(buckets):
        return buckets[place]
    step = max(1, buckets[-1] // 8)
    return -(-length // step) * step


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


def generate(
    weights: Weights, prompts: Prompts, key: PRNGKeyArray, settings: Generating
) -> Generation:
    """Continues each prompt; pure, to be jitted with `settings` static.

    ```
    weights = jax.jit(lay_out)(merge(graphdef, params))
    run = jax.jit(generate, static_argnames="settings")
    run(weights, pad_prompts([[1, 2, 3], [4]]), jax.random.key(0), Generating(64, stop=(2,)))
    ```
    """
    start = prefill(weights, prompts, settings.max_new_tokens)
    return decode(weights, start, key, settings)


def prefill(weights: Weights, prompts: Prompts, max_new_tokens: int) -> Start:
    """Reads the prompts into a cache with room for `max_new_tokens` more.

    Logits are formed of the last position only.
    """
    T = prompts.tokens.shape[1]
    positions = jnp.arange(T) - (T - prompts.lengths[:, None])
    segments = (positions >= 0).astype(jnp.int32)
    hidden, kept = weights.model.prefill(
        prompts.tokens, jnp.maximum(positions, 0), segments, T + max_new_tokens
    )
    return Start(kept, _logits(weights, hidden[:, -1]), prompts.lengths)


def repeated(start: Start, times: int) -> Start:
    """Each row `times` times in a row, for rollouts in groups: the prompt is read once."""
    logits, positions = (jnp.repeat(x, times, axis=0) for x in (start.logits, start.positions))
    return Start(cache.repeat_rows(start.cache, times), logits, positions)


def decode(weights: Weights, start: Start, key: PRNGKeyArray, settings: Generating) -> Generation:
    """Draws tokens until each row has drawn a stop token or `max_new_tokens`.

    Row `b` draws its token `i` with a key made of `key`, `b` and `i` alone: what it becomes does
    not depend on its neighbours.
    """
    rows = start.logits.shape[0]
    keys = jax.random.split(key, rows)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.step < settings.max_new_tokens) & ~state.done.all()

    def advance(state: _State) -> _State:
        previous = jax.lax.dynamic_index_in_dim(
            state.out.tokens, state.step - 1, axis=1, keepdims=False
        )
        positions = start.positions + state.step - 1
        hidden, kept = weights.model.decode(previous, positions, state.cache, weights.blocks)
        return _append(state._replace(cache=kept), _logits(weights, hidden), keys, settings)

    kept = start.cache if weights.blocks is None else cache.unstack_cache(start.cache)
    first = _append(_empty(rows, kept, settings), start.logits, keys, settings)
    return jax.lax.while_loop(unfinished, advance, first).out


class _State(NamedTuple):
    cache: Cache
    out: Generation
    done: Bool[Array, "B"]
    step: Int[Array, ""]  # tokens written so far


def _empty(rows: int, kept: Cache, settings: Generating) -> _State:
    shape = (rows, settings.max_new_tokens)
    nothing = jnp.zeros(shape, jnp.float32)
    out = Generation(
        jnp.full(shape, settings.pad, jnp.int32), nothing, nothing, jnp.zeros(rows, jnp.int32)
    )
    return _State(kept, out, jnp.zeros(rows, bool), jnp.zeros((), jnp.int32))


def _append(
    state: _State,
    logits: Float[Array, "B V"],
    keys: Key[Array, "B"],
    settings: Generating,
) -> _State:
    """Draws the next token of each row that is not done, and writes it."""
    out, done, step = state.out, state.done, state.step
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
    drawn = draw(logits, step_keys, settings.sampling)

    def put(buffer: Array, column: Array, rest: int | float) -> Array:
        kept = jnp.where(done, rest, column).astype(buffer.dtype)
        return jax.lax.dynamic_update_index_in_dim(buffer, kept, step, axis=1)

    extended = Generation(
        put(out.tokens, drawn.tokens, settings.pad),
        put(out.log_probs, drawn.log_probs, 0.0),
        put(out.sampling_log_probs, drawn.sampling_log_probs, 0.0),
        out.lengths + ~done,
    )
    stopped = jnp.isin(drawn.tokens, jnp.asarray(settings.stop, jnp.int32))
    return _State(state.cache, extended, done | stopped, step + 1)


def _logits(weights: Weights, hidden: Float[Array, "B D"]) -> Float[Array, "B V"]:
    if weights.unembedding is None:
        return weights.model.logits(hidden)
    raw = jnp.matmul(hidden, weights.unembedding, preferred_element_type=jnp.float32)
    return capped(raw, weights.model.config.final_softcap)

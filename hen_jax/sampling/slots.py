"""The state of the engine's slots: a tree of arrays, whose shapes depend on `Slots` alone.

The programs over it are pure (`reading`, `drawing`, `drafting`), and weights are arguments: rows
come and go, and weights change, without a compilation.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int, UInt8, UInt32

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH, Layout
from hen_jax.core.types import Array
from hen_jax.models.cache import Cache, empty_layers
from hen_jax.models.layers import Gate
from hen_jax.sampling.logits import RowSampling
from hen_jax.sampling.weights import Weights


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
    draft: int = 0  # tokens guessed ahead and checked in one step; 0: none
    history: int = 2048  # tokens of a row, its hints included, that guesses are looked up in
    cache_dtype: str | None = None  # of keys and values; None: the compute dtype
    columns: int = 0  # of several adapters side by side, chosen row by row; 0: not chosen

    def __post_init__(self):
        sizes = self.rows, self.places, self.chunk, self.prefill_tokens, *self.prefill
        counts = self.stops, self.biases, self.top, self.draft, self.columns
        if min(sizes) < 1 or min(counts) < 0:
            raise InputError(
                f"slots are {self}; rows, places, chunk and prefill must be at least 1"
            )
        if not self.prefill or list(self.prefill) != sorted(set(self.prefill)):
            raise InputError(f"prefill sizes are {self.prefill}; give some, increasing")

    @property
    def room(self) -> int:
        """Places of a row in the cache: a chunk, or the smallest prefill, fits behind the last."""
        return self.places + max(self.chunk * (self.draft + 1), self.prefill[0])

    @property
    def reads(self) -> tuple[int, ...]:
        """How many places of the cache a step may be compiled to read: 256, 1024, ... and all."""
        sizes = itertools.takewhile(
            lambda size: 2 * size <= self.room, (4**n for n in itertools.count(4))
        )
        return (*sizes, self.room)


class Rows(NamedTuple):
    """What each row is at; `B` slots."""

    last: Int[Array, "B"]  # the token that is read next
    drawn: Int[Array, "B"]  # tokens of the reply so far
    left: Int[Array, "B"]  # tokens that may still be drawn; 0: the row is done, or nobody's
    reach: Int[Array, "B"]  # the length that the row may come to
    stop: Int[Array, "B E"]  # -1: none
    seed: UInt32[Array, "B"]
    sampling: RowSampling
    gate: Float[Array, "B R"]  # which adapters it uses: a factor for each column


def gate_of(columns: Float[Array, "P R"]) -> Gate | None:
    """What a forward pass chooses adapters by; None where there are no columns to choose from."""
    return columns[:, None] if columns.shape[1] else None


class DecodeState(NamedTuple):
    """All that decoding remembers; to be donated."""

    cache: Cache
    marks: UInt8[Array, "B V"]  # which tokens stand in the prompt and the reply
    rows: Rows


def init_slots(weights: Weights, slots: Slots) -> DecodeState:
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
    gate = jnp.zeros((B, slots.columns), jnp.float32)
    rows = Rows(count, count, count, count, stop, count.astype(jnp.uint32), sampling, gate)
    marks = jnp.zeros((B, model.config.vocab_size), jnp.uint8)
    return DecodeState(Cache(layers, count), marks, rows)


def admit(
    state: DecodeState,
    slot: Int[Array, "P"],
    rows: Rows,
    lengths: Int[Array, "P"],
    marks: UInt8[Array, "P V"],
) -> DecodeState:
    """Puts requests into slots whose cache holds the first `lengths` tokens of their prompts.

    A slot of `B` or more is nobody's: that entry is dropped.
    """

    def put(old: Array, new: Array) -> Array:
        return old.at[slot].set(new, mode="drop")

    cache = state.cache._replace(lengths=put(state.cache.lengths, lengths))
    return DecodeState(cache, put(state.marks, marks), jax.tree.map(put, state.rows, rows))


def release(state: DecodeState, slot: Int[Array, "P"]) -> DecodeState:
    """Ends the replies in these slots; what their cache holds stays readable."""
    left = state.rows.left.at[slot].set(0, mode="drop")
    return state._replace(rows=state.rows._replace(left=left))


def state_shardings(state: DecodeState, layout: Layout) -> DecodeState:
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

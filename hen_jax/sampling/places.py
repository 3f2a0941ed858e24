"""Which request goes to which slot, what it can take over from others, and in which order."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.models.config import DecoderConfig, LongRope
from hen_jax.sampling.reading import PromptPiece
from hen_jax.sampling.request_rows import gate_rows
from hen_jax.sampling.requests import Request
from hen_jax.sampling.slots import Slots

_NOTHING = np.zeros(0, np.int32)

_SHARED = 16
"""Tokens from which on a common beginning is copied and not read again."""


class Resident(NamedTuple):
    """What the cache holds of a slot, whether its reply is still being written or not."""

    tokens: np.ndarray = _NOTHING  # [N] int32
    kind: tuple[str, bool] = ("", False)  # keys and values of another kind are other ones
    used: int = -1  # when it was last filled: the oldest is given up first


class Entry(NamedTuple):
    """One request on its way into a slot."""

    number: int  # its place among the requests
    slot: int
    prompt: np.ndarray  # [N] int32, all but the last token, which the first step reads
    reach: int
    source: int | None  # a slot that holds the first `shared` tokens; None: nobody does
    shared: int
    gate: tuple[float, ...] = ()


class SlotPlan(NamedTuple):
    """Waves of entries: those of one may take over what the waves before it have read."""

    waves: list[list[Entry]]
    residents: list[Resident]  # once all is done


def _kind_of(request: Request, config: DecoderConfig) -> tuple[str, bool]:
    """Whose keys and values are the same for the same tokens: of the same adapters, by their
    contents and weights, and with longrope of one set of factors."""
    scaling, reach = config.rope_scaling, len(request.prompt) + request.max_new_tokens
    return request.adapter.key, isinstance(scaling, LongRope) and reach > scaling.original_length


def plan_admission(
    requests: Sequence[Request],
    residents: Sequence[Resident],
    free: Sequence[int],
    config: DecoderConfig,
) -> SlotPlan:
    """Places each request in a free slot, and finds whose beginning it shares.

    Of several samples of a prompt the first reads it and the others copy; so of several prompts
    behind one system prompt. An idle slot that holds the beginning itself is taken as it is.
    """
    held, left = list(residents), set(free)
    written: dict[int, int] = {}  # slot -> the wave that fills it
    readers: dict[int, int] = {}  # slot -> the last wave that copies what it held before
    waves: list[list[Entry]] = []
    newest = max(resident.used for resident in residents) + 1
    for number, request in enumerate(requests):
        prompt, kind = np.asarray(request.prompt[:-1], np.int32), _kind_of(request, config)
        source, shared = _best_source(held, prompt, kind, left)
        slot = source if source in left else min(left, key=lambda one: (held[one].used, one))
        left.discard(slot)
        wave = readers.get(slot, 0)
        if source is not None and source != slot:
            wave = max(wave, written.get(source, -1) + 1)
            if source not in written:
                readers[source] = max(readers.get(source, 0), wave)
        written[slot] = wave
        held[slot] = Resident(prompt, kind, newest + number)
        waves += [[] for _ in range(wave + 1 - len(waves))]
        reach = len(request.prompt) + request.max_new_tokens
        gate = request.adapter.gate
        waves[wave].append(Entry(number, slot, prompt, reach, source, shared, gate))
    return SlotPlan(waves, held)


def _best_source(
    held: Sequence[Resident], prompt: np.ndarray, kind: tuple[str, bool], left: set[int]
) -> tuple[int | None, int]:
    """The slot whose tokens agree longest with the prompt, a free one if it can be."""
    common = [_common(one.tokens, prompt) if one.kind == kind else 0 for one in held]
    best = max(range(len(held)), key=lambda slot: (common[slot], slot in left))
    return (best, common[best]) if common[best] >= _SHARED else (None, 0)


def _common(held: np.ndarray, prompt: np.ndarray) -> int:
    count = min(len(held), len(prompt))
    differ = np.flatnonzero(held[:count] != prompt[:count])
    return int(differ[0]) if differ.size else count


def pieces(wave: Sequence[Entry], slots: Slots) -> Iterator[tuple[PromptPiece, bool]]:
    """What is left to be read of the prompts of a wave, as the arguments of `reading.prefill`."""
    at = {entry.slot: entry.shared for entry in wave}
    while rest := [entry for entry in wave if at[entry.slot] < len(entry.prompt)]:
        groups: dict[tuple[int, bool], list[Entry]] = {}
        for entry in rest:
            start = at[entry.slot]
            fitting = [size for size in slots.prefill if start + size <= slots.room]
            size = piece_size(len(entry.prompt) - start, fitting)
            groups.setdefault((size, start > 0), []).append(entry)
        for (size, resumed), group in groups.items():
            together = max(1, min(slots.rows, slots.prefill_tokens // size))
            for first in range(0, len(group), together):
                some = group[first : first + together]
                yield _piece(some, at, size, slots, together), resumed
                at |= {one.slot: at[one.slot] + size for one in some}


def piece_size(left: int, sizes: Sequence[int]) -> int:
    """How many of `left` tokens are read next: padded to a size where that wastes at most a half.

    With sizes 16, 64 and 256, 50 tokens are read as 64, but 30 as 16 and 16.
    """
    fitting = [size for size in sizes if size >= left]
    smaller = [size for size in sizes if size < left]
    if fitting and (not smaller or fitting[0] <= 1.5 * left):
        return fitting[0]
    return smaller[-1]


def _piece(
    group: Sequence[Entry], at: dict[int, int], size: int, slots: Slots, most: int
) -> PromptPiece:
    rows = padded_count(len(group), most)
    tokens = np.zeros((rows, size), np.int32)
    slot, start, reach = (np.full(rows, fill, np.int32) for fill in (slots.rows, 0, size))
    for row, entry in enumerate(group):
        some = entry.prompt[at[entry.slot] :][:size]
        tokens[row, : len(some)] = some
        slot[row], start[row], reach[row] = entry.slot, at[entry.slot], entry.reach
    gates = gate_rows([entry.gate for entry in group], rows, slots.columns)
    return PromptPiece(tokens, slot, start, reach, gates)


def padded_count(count: int, most: int) -> int:
    """The power of 4 that holds `count`, or `most`: few sizes, few compilations."""
    size = 1
    while size < count:
        size *= 4
    return min(size, most)

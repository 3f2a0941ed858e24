"""Replies while they are written: what each chunk adds, and where a stop string cuts."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from hen_jax.sampling.drawing import Chunk, StepTokens
from hen_jax.sampling.requests import Completion, Finish, Request, Top


@dataclasses.dataclass(frozen=True)
class Writing:
    """A reply so far: what each chunk brought, in parts to be joined at the end."""

    id: int
    request: Request
    cached_tokens: int
    parts: tuple[StepTokens, ...] = ()  # of this row alone
    stop_string: str | None = None

    @property
    def tokens(self) -> np.ndarray:
        """All tokens of the reply so far."""
        none = np.zeros(0, np.int32)
        return np.concatenate([none, *(part.tokens for part in self.parts)])


def extended(writing: Writing, chunk: Chunk, slot: int) -> Writing:
    """The reply with what a chunk on the host drew for its slot."""
    count = int(chunk.counts[slot])
    part = jax.tree.map(lambda leaf: leaf[slot, :count], chunk.drawn)
    if not writing.request.tops:
        part = part._replace(top_tokens=None, top_log_probs=None, top_sampling_log_probs=None)
    return dataclasses.replace(writing, parts=(*writing.parts, part))


def cut(writing: Writing, length: int) -> Writing:
    """The reply without what comes after its first `length` tokens."""
    parts, left = [], length
    for part in writing.parts:
        parts.append(jax.tree.map(lambda leaf, left=left: leaf[:left], part))
        left = max(0, left - len(part.tokens))
    return dataclasses.replace(writing, parts=tuple(parts))


def cut_at_stop_string(
    writing: Writing, decode: Callable[[Sequence[int]], str], before: int
) -> Writing:
    """The reply up to the token that completes a stop string, where one occurs.

    `before` is how many tokens of it were looked at already: none of them completes one.
    """
    tokens, strings = writing.tokens.tolist(), writing.request.stop_strings
    if _first(decode(tokens), strings) is None:
        return writing
    for length in range(before + 1, len(tokens) + 1):
        found = _first(decode(tokens[:length]), strings)
        if found is not None:
            return dataclasses.replace(cut(writing, length), stop_string=found)
    return writing


def _first(text: str, strings: Sequence[str]) -> str | None:
    """The stop string that occurs first in the text."""
    places = [(text.find(one), one) for one in strings if one in text]
    return min(places)[1] if places else None


def finish_of(writing: Writing) -> Finish | None:
    """How the reply ended; None while it goes on."""
    tokens, request = writing.tokens, writing.request
    if writing.stop_string is not None or (len(tokens) and int(tokens[-1]) in request.stop):
        return "stop"
    return "length" if len(tokens) >= request.max_new_tokens else None


def completion(writing: Writing, finish: Finish) -> Completion:
    """The finished reply."""
    request, told = writing.request, joined(writing.parts)
    return Completion(
        writing.id,
        told.tokens,
        told.log_probs,
        told.sampling_log_probs,
        told.support if request.sampling.filters else None,
        top_of(told),
        len(request.prompt),
        writing.cached_tokens,
        finish,
        writing.stop_string,
    )


def top_of(told: StepTokens) -> Top | None:
    """The most probable tokens at each place; None where they were not asked for."""
    listed = told.top_tokens, told.top_log_probs, told.top_sampling_log_probs
    return None if told.top_tokens is None else Top(*map(np.asarray, listed))


def joined(parts: Sequence[StepTokens]) -> StepTokens:
    """The parts of a reply as one; of none, what no token tells."""
    if parts:
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    none = np.zeros(0, np.float32)
    return StepTokens(none.astype(np.int32), none, none, None, None, None, None)

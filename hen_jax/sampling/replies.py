"""Replies while they are written: what each chunk adds, and where a stop string cuts."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from hen_jax.sampling.requests import Completion, Finish, Request, Top
from hen_jax.sampling.slots import Chunk


@dataclasses.dataclass(frozen=True)
class Writing:
    """A reply so far: what each chunk brought, in parts to be joined at the end."""

    id: int
    request: Request
    cached_tokens: int
    parts: tuple[Chunk, ...] = ()  # of this row alone, each cut to what it drew
    stop_string: str | None = None

    @property
    def tokens(self) -> np.ndarray:
        """All tokens of the reply so far."""
        return joined([part.tokens for part in self.parts])


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays one after the other; none at all are no tokens."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def extended(writing: Writing, chunk: Chunk, slot: int) -> Writing:
    """The reply with what a chunk on the host drew for its slot."""
    count = int(chunk.counts[slot])
    part = Chunk(*(None if field is None else field[slot][:count] for field in _by_token(chunk)))
    return dataclasses.replace(writing, parts=(*writing.parts, part))


def _by_token(chunk: Chunk) -> list[np.ndarray | None]:
    """The fields of a chunk, all `[B, W, ...]`: its counts as one number a token."""
    wide = np.broadcast_to(np.asarray(chunk.counts)[:, None], chunk.tokens.shape)
    return list(chunk._replace(counts=wide))


def cut(writing: Writing, length: int) -> Writing:
    """The reply without what comes after its first `length` tokens."""
    parts, left = [], length
    for part in writing.parts:
        parts.append(Chunk(*(None if field is None else field[:left] for field in part)))
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
    parts, request = writing.parts, writing.request

    def field(name: str, width: tuple[int, ...] = (), dtype: type = np.float32) -> np.ndarray:
        given = [part._asdict()[name] for part in parts]
        return np.concatenate(given) if given else np.zeros((0, *width), dtype)

    support = parts and parts[0].support is not None and request.sampling.filters
    top = parts and parts[0].top_tokens is not None
    return Completion(
        writing.id,
        field("tokens", dtype=np.int32),
        field("log_probs"),
        field("sampling_log_probs"),
        field("support") if support else None,
        Top(field("top_tokens"), field("top_log_probs"), field("top_sampling_log_probs"))
        if top
        else None,
        len(request.prompt),
        writing.cached_tokens,
        finish,
        writing.stop_string,
    )

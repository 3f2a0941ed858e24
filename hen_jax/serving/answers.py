"""Answers as the OpenAI API has them: whole ones, chunks of a stream, log-probabilities, counts."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.sampling.requests import Completion, Top
from hen_jax.text.token_bytes import token_text

BytesOf = Callable[[int], bytes]
"""`text.token_bytes` of the tokenizer."""

_LEAST = -9999.0
"""What the API tells for a probability of zero."""


class Head(NamedTuple):
    """What all chunks of an answer share."""

    id: str
    kind: str  # "chat.completion", or "text_completion"
    created: int  # seconds since 1970
    model: str

    def body(self, choices: list[dict[str, Any]], chunk: bool = False) -> dict[str, Any]:
        """An answer, or a chunk of it, with these choices."""
        kind = f"{self.kind}.chunk" if chunk and self.kind == "chat.completion" else self.kind
        told = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**told, "choices": choices}


class Token(NamedTuple):
    """A token of an answer, and those that were most probable in its place."""

    token: int
    log_prob: float | None  # None: of the first of all
    top: tuple[tuple[int, float], ...] | None  # None: not asked for


def tokens_told(
    tokens: np.ndarray, log_probs: np.ndarray, top: Top | None, most: int
) -> list[Token]:
    """Tokens with at most `most` alternatives each. Of the token itself they hold its own number,
    so that it can be seen whether it was the most probable."""
    told = []
    for place, (token, log_prob) in enumerate(zip(tokens.tolist(), log_probs, strict=True)):
        own = _finite(log_prob)
        listed = None
        if top is not None and most:
            pairs = zip(top.tokens[place][:most], top.log_probs[place][:most], strict=True)
            listed = tuple((int(t), own if t == token else _finite(x)) for t, x in pairs)
        told.append(Token(token, own, listed))
    return told


def chat_logprobs(told: Sequence[Token], bytes_of: BytesOf) -> dict[str, Any]:
    """`logprobs` of a choice of a chat completion."""

    def entry(token: int, log_prob: float | None) -> dict[str, Any]:
        raw = bytes_of(token)
        return {"token": token_text(raw), "logprob": log_prob, "bytes": list(raw)}

    content = [
        entry(one.token, one.log_prob) | {"top_logprobs": [entry(*pair) for pair in one.top or ()]}
        for one in told
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    told: Sequence[Token], bytes_of: BytesOf, offset: int
) -> tuple[dict[str, Any], int]:
    """`logprobs` of a choice of a completion whose text so far is `offset` characters long, and how
    long it is then."""
    raw = [bytes_of(one.token) for one in told]
    offsets = []
    for one in raw:
        offsets.append(offset)
        offset += len(one.decode("utf-8", "ignore"))
    listed = any(one.top is not None for one in told)
    found = {
        "tokens": list(map(token_text, raw)),
        "token_logprobs": [one.log_prob for one in told],
        "top_logprobs": [_by_text(one, bytes_of) for one in told] if listed else None,
        "text_offset": offsets,
    }
    return found, offset


def usage(done: Sequence[Completion | None], n: int) -> dict[str, Any]:
    """Counts of tokens over all rows, `n` of each prompt, which counts once; None: not finished."""
    written = sum(len(one.tokens) for one in done if one is not None)
    prompts = [one for one in done[::n] if one is not None]
    read = sum(one.prompt_tokens for one in prompts)
    cached = sum(one.cached_tokens for one in prompts)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _by_text(one: Token, bytes_of: BytesOf) -> dict[str, float] | None:
    """The alternatives and the token itself, by their texts; None of a token that has none."""
    if one.top is None or one.log_prob is None:
        return None
    found = {token_text(bytes_of(token)): log_prob for token, log_prob in one.top}
    return found | {token_text(bytes_of(one.token)): one.log_prob}


def _finite(log_prob: float) -> float:
    return float(log_prob) if math.isfinite(log_prob) else _LEAST

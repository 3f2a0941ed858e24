"""Recorded replies: a file of what some model answered, which answers in its place.

A line of the file is `{"messages": [...], "reply": TEXT, "tokens": N, "stopped": true,
"mean_log_prob": X}`; all but the first two may be left out.
"""

import json
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.text.conversation import Chat, Message, Reply, UnansweredError, message_row


def recorded(chat: Chat, path: Path) -> Chat:
    """`chat`, with every reply also written to the end of the file at `path`; those, too, that came
    in a call in which others did not."""

    def write(asked: Sequence[Sequence[Message]], replies: Sequence[Reply | None]) -> None:
        with path.open("a", encoding="utf-8") as file:
            for messages, reply in zip(asked, replies, strict=True):
                if reply is not None:
                    given = {key: x for key, x in reply._asdict().items() if key != "text"}
                    rows = list(map(message_row, messages))
                    row = {"messages": rows, "reply": reply.text, **given}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def ask(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        try:
            replies = chat(asked)
        except UnansweredError as error:
            write(asked, error.replies)
            raise
        write(asked, replies)
        return replies

    return ask


def replay(path: Path) -> Chat:
    """The replies in the file at `path`, to the conversations they were given to.

    A conversation that stands there several times gets its replies one after another.

    Raises:
      InputError: a line is no recorded reply (`file:line: what`); when asked, a conversation that
        has no reply there, or none that was not given already.
    """
    found: dict[str, deque[Reply]] = {}
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            try:
                messages, reply = _row(line)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{path}:{number}: no recorded reply ({type(error).__name__}: {error}); each "
                    "line is an object with messages and reply"
                ) from None
            found.setdefault(messages, deque()).append(reply)

    def ask(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        return [_next(found, messages, path) for messages in asked]

    return ask


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}; give a file of recorded replies") from None


_KINDS = {
    "tokens": int | None,
    "stopped": bool,
    "mean_log_prob": float | int | None,
}
"""What a line may say of a reply, beside its text."""


def whole_characters(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which is no character.

    A reply cut inside an emoji may hold one.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _row(line: str) -> tuple[str, Reply]:
    row = json.loads(line)
    text = row["reply"]
    if not isinstance(text, str):
        raise TypeError("reply is no text")
    own = {key: row[key] for key in Reply._fields[1:] if key in row}
    for key, value in own.items():
        if not isinstance(value, _KINDS[key]):
            raise TypeError(f"{key} is {value!r:.40}")
    reply = Reply(whole_characters(text), **own)
    if reply.tokens is not None and reply.tokens < 0:
        raise ValueError(f"tokens is {reply.tokens}; allowed: 0 or more")
    if reply.mean_log_prob is not None and not math.isfinite(reply.mean_log_prob):
        raise ValueError(f"mean_log_prob is {reply.mean_log_prob}; allowed: a finite number")
    return _key(row["messages"]), reply


def _next(found: dict[str, deque[Reply]], messages: Sequence[Message], path: Path) -> Reply:
    left = found.get(_key(list(map(message_row, messages))))
    if not left:
        why = "has no reply to" if left is None else "has given all its replies to"
        raise InputError(
            f"{path} {why} the conversation that ends with {messages[-1].content[:60]!r}; record it"
        )
    return left.popleft()


def _key(rows: list[dict]) -> str:
    return json.dumps(rows, sort_keys=True)

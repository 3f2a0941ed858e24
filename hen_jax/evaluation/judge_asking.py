"""Asks a judge once for each question: what a journal holds already is not asked again."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.journal import Journal
from hen_jax.text.conversation import Chat, Message, Reply, UnansweredError

JUDGE_JOURNAL = "journal of judge calls"
"""What the first line of a journal of these calls says."""


class JudgeIdentity(NamedTuple):
    """All that a reply depends on besides the question."""

    back_end: str
    revision: str
    decoding: Mapping[str, Any]
    nonce: str  # the policy, not a nonce


class JudgeCall(NamedTuple):
    """A call to be made: its key, how long it is to read, and the conversation itself."""

    key: str
    length: int
    conversation: Callable[[], Sequence[Message]]


def call_key(judge: JudgeIdentity, prompt: str, order: int, repeat: int) -> str:
    """The name of a call in the journal: judge, question without its nonce, order, repeat."""
    named = [*judge, text_sha256(prompt), order, repeat]
    return text_sha256(json.dumps(named, sort_keys=True, ensure_ascii=False))


def ask_all(
    asks: Iterable[JudgeCall],
    speaker: Callable[[int], Chat],
    journal: Journal,
    *,
    chunk: int,
    seed: int,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Reply]:
    """The reply to each call by its key, from the journal or else from the judge.

    Calls are made `chunk` at a time, the shortest first, and are on the disk before the next: a
    kill costs the chunk under way. Each chunk draws from a seed of its own, so that a repeated
    question is not answered by the same draws.

    Raises:
      InputError: the judge does not answer; what came is in the journal.
    """
    known = {row["key"]: _reply(row) for row in journal.rows}
    wanted = {ask.key: ask for ask in asks}
    missing = sorted((a for a in wanted.values() if a.key not in known), key=lambda a: a.length)
    for start in range(0, len(missing), chunk):
        part = missing[start : start + chunk]
        told(start, len(missing))
        own = int(text_sha256(f"{seed} {part[0].key}")[:7], 16)
        try:
            replies: Sequence[Reply | None] = speaker(own)([ask.conversation() for ask in part])
        except UnansweredError as error:
            _keep(part, error.replies, known, journal)
            raise InputError(
                f"{error}; {len(wanted.keys() & known.keys())} of {len(wanted)} replies are kept, "
                "and the same command goes on from there"
            ) from None
        _keep(part, replies, known, journal)
    return {key: known[key] for key in wanted}


def begun_reply(beginning: str, reply: Reply) -> Reply:
    """A reply with the beginning it was given, up to the end of its first JSON object.

    A model that was made to begin seldom stops by itself; without a whole object all of it stays,
    and is no verdict.
    """
    text = beginning + reply.text
    try:
        end = json.JSONDecoder().raw_decode(text)[1]
    except (ValueError, RecursionError):
        return reply._replace(text=text)
    return reply._replace(text=text[:end], stopped=True)


def _keep(
    part: Sequence[JudgeCall],
    replies: Sequence[Reply | None],
    known: dict[str, Reply],
    journal: Journal,
) -> None:
    came = {ask.key: reply for ask, reply in zip(part, replies, strict=True) if reply is not None}
    journal.append({"key": key, **reply._asdict()} for key, reply in came.items())
    known |= came


def _reply(row: Mapping[str, Any]) -> Reply:
    try:
        text, key = row["text"], row["key"]
    except KeyError as error:
        raise InputError(f"the {JUDGE_JOURNAL} has a row without {error}; delete it") from None
    if not isinstance(text, str) or not isinstance(key, str):
        raise InputError(f"the {JUDGE_JOURNAL} has a row whose key or text is no text; delete it")
    return Reply(**{name: row[name] for name in Reply._fields if name in row})

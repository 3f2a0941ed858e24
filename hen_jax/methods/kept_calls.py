"""Calls that are kept in a journal: a run that was killed asks nothing twice."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.journal import Journal
from hen_jax.text.conversation import Chat, Message, Reply, UnansweredError, message_row

METHOD_JOURNAL = "journal of method calls"
"""What the first line of such a journal says."""

CHUNK = 64
"""Calls that are made, and kept, together."""


def kept(chat: Chat, journal: Journal, identity: str, chunk: int = CHUNK) -> Chat:
    """`chat`, with every reply in the journal; what stands there already is not asked again.

    `identity` says who answers and how. The same conversation asked several times has as many
    replies, in order. Calls are made `chunk` at a time, and are on the disk before the next.

    Raises, when asked:
      InputError: the back-end does not answer; what came is in the journal.
    """
    known = {row["key"]: _reply(row) for row in journal.rows}
    asked: Counter[str] = Counter()

    def key_of(messages: Sequence[Message]) -> str:
        told = json.dumps([identity, *map(message_row, messages)], sort_keys=True)
        asked[told] += 1
        return text_sha256(f"{asked[told]} {told}")

    def keep(keys: Sequence[str], replies: Sequence[Reply | None]) -> None:
        came = {key: reply for key, reply in zip(keys, replies, strict=True) if reply is not None}
        journal.append({"key": key, **reply._asdict()} for key, reply in came.items())
        known.update(came)

    def ask(conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        keys = [key_of(messages) for messages in conversations]
        missing = [at for at, key in enumerate(keys) if key not in known]
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]
            named = [keys[at] for at in part]
            try:
                keep(named, chat([conversations[at] for at in part]))
            except UnansweredError as error:
                keep(named, error.replies)
                raise InputError(
                    f"{error}; what came is kept, and the same command goes on from there"
                ) from None
        return [known[key] for key in keys]

    return ask


def _reply(row: dict[str, Any]) -> Reply:
    if not isinstance(row.get("text"), str) or not isinstance(row.get("key"), str):
        raise InputError(f"the {METHOD_JOURNAL} has a row without key and text; delete it")
    return Reply(**{name: row[name] for name in Reply._fields if name in row})

"""Asks each conversation once: what a journal holds already is not asked again, whatever kills.

Calls are made a chunk at a time, in an order and in chunks that depend on nothing but the calls
themselves, and a chunk is one line of the journal. So a run that was killed asks the same chunks
again with the same seeds, and ends with the same bytes as one that was not.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.journal import open_journal
from hen_jax.text.conversation import Chat, Message, Reply, UnansweredError, message_row

_KIND = "journal of synthesis calls"
"""What the first line of such a file says."""

Ask = Chat
"""`ask(conversations)`: the reply to each, from the journal or else from the model."""


@contextmanager
def journaled(
    path: Path,
    speaker: Callable[[int], Chat],
    *,
    chunk: int,
    seed: int,
    told: Callable[[int], None] = lambda done: None,
) -> Iterator[Ask]:
    """The model behind the journal at `path`; `told` hears how many replies there are.

    Each chunk draws from a seed of its own. The same conversation asked twice has one reply.

    Raises:
      InputError: the journal is none or damaged, or the model does not answer (what came is kept).
    """
    with open_journal(path, _KIND) as journal:
        known = _replies(journal.rows, path)

        def keep(came: Mapping[str, Reply]) -> None:
            known.update(came)
            calls = [{"key": key, **reply._asdict()} for key, reply in came.items()]
            journal.append([{"calls": calls}])
            told(len(known))

        def ask(asked: Sequence[Sequence[Message]]) -> list[Reply]:
            keys = list(map(_call_key, asked))
            of_key = dict(zip(keys, asked, strict=True))
            wanted = list(of_key)
            for start in range(0, len(wanted), chunk):
                part = wanted[start : start + chunk]
                missing = [key for key in part if key not in known]
                if missing:
                    own = int(text_sha256(f"{seed} {part[0]}")[:7], 16)
                    _ask(missing, of_key, speaker(own), keep)
            return [known[key] for key in keys]

        yield ask


def _call_key(messages: Sequence[Message]) -> str:
    """The name of a call in the journal."""
    rows = list(map(message_row, messages))
    return text_sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False))


def _ask(
    missing: Sequence[str],
    of_key: Mapping[str, Sequence[Message]],
    chat: Chat,
    keep: Callable[[Mapping[str, Reply]], None],
) -> None:
    try:
        replies = chat([of_key[key] for key in missing])
    except UnansweredError as error:
        came = dict(zip(missing, error.replies, strict=True))
        keep({key: reply for key, reply in came.items() if reply is not None})
        raise InputError(
            f"{error}; what came is kept, and the same command goes on from there"
        ) from None
    keep(dict(zip(missing, replies, strict=True)))


def _replies(rows: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Reply]:
    try:
        return {
            call["key"]: Reply(**{name: call[name] for name in Reply._fields if name in call})
            for row in rows
            for call in row["calls"]
        }
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: a line is no chunk of calls ({type(error).__name__}: {error}); delete it"
        ) from None

"""Every schema hen_jax reads: name -> how a file is checked and what its records train.

One row here is all that a new data set needs beside its reader.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.data.conversations import check_completions, check_conversations
from hen_jax.data.cped import check_cped
from hen_jax.data.empathetic_dialogues import EmpatheticDialogue, check_empathetic_dialogues
from hen_jax.data.esconv import SupportConversation, check_esconv
from hen_jax.data.examples import Document
from hen_jax.data.hed import HedRecord, check_hed, hed_conversation
from hen_jax.data.preferences import (
    Labelled,
    Pair,
    Rated,
    check_labelled,
    check_pairs,
    check_rated,
    hed_pairs,
    steered_pair,
)
from hen_jax.data.records import Parsed
from hen_jax.data.sense7 import RatedConversation, check_sense7
from hen_jax.data.steered import SteeredRecord, check_steered, steered_conversation


@dataclasses.dataclass(frozen=True)
class Schema:
    """How files of one kind are read."""

    check: Callable[[Path], Parsed[Any]]
    document: Callable[[Any], Document]
    pairs: Callable[[Any], list[Pair]] | None = None  # for preference data
    labels: Callable[[Any], dict[str, str]] = lambda record: {}  # what tables count
    rows_are_records: bool = True  # one row is one record


def _hed_document(record: HedRecord) -> Document:
    return Document(record.id, record.statement_id, hed_conversation(record))


def _steered_document(record: SteeredRecord) -> Document:
    return Document(record.id, record.group, steered_conversation(record))


def _pair_document(record: Pair) -> Document:
    return Document(record.id, record.group, record.conversations()[0])


def _plain_document(record: Labelled | Rated) -> Document:
    return Document(record.id, record.group, record.conversation)


def _hed_labels(record: HedRecord) -> dict[str, str]:
    return {
        "task": record.task,
        "language": record.language,
        "emotion": record.emotion,
        "role": record.role or "none",
        "personality": record.personality or "none",
    }


SCHEMAS: dict[str, Schema] = {
    "hed": Schema(check_hed, _hed_document, hed_pairs, _hed_labels),
    "steered": Schema(
        check_steered,
        _steered_document,
        lambda record: [steered_pair(record)],
        lambda record: {"context": record.context, "task": record.task, "fault": str(record.fault)},
    ),
    "messages": Schema(check_conversations, lambda record: record),
    "sharegpt": Schema(check_conversations, lambda record: record),
    "smilechat": Schema(check_conversations, lambda record: record),
    "completion": Schema(check_completions, lambda record: record),
    "preference": Schema(check_pairs, _pair_document, lambda record: [record]),
    "label": Schema(
        check_labelled, _plain_document, labels=lambda record: {"label": str(record.label)}
    ),
    "rating": Schema(
        check_rated, _plain_document, labels=lambda record: {"rating": f"{record.rating:.2f}"}
    ),
    "empathetic_dialogues": Schema(
        check_empathetic_dialogues,
        EmpatheticDialogue.document,
        labels=lambda record: {"emotion": record.emotion},
        rows_are_records=False,
    ),
    "esconv": Schema(
        check_esconv,
        SupportConversation.document,
        labels=lambda record: {"emotion": record.emotion, "problem": record.problem},
    ),
    "cped": Schema(check_cped, _hed_document, labels=_hed_labels, rows_are_records=False),
    "sense7": Schema(
        check_sense7,
        RatedConversation.document,
        labels=lambda record: {"task": record.task, "model": record.model},
        rows_are_records=False,
    ),
}


def schema_named(name: str) -> Schema:
    """The schema of that name.

    Raises:
      InputError: no such schema; lists those there are.
    """
    if name not in SCHEMAS:
        raise InputError(f"schema {name!r}; allowed: {', '.join(SCHEMAS)}")
    return SCHEMAS[name]


def read_documents(path: str | Path, schema: str) -> list[Document]:
    """What a file of that schema trains.

    Raises:
      InputError: no such schema, or a bad record (file:line:field).
    """
    found = schema_named(schema)
    return [found.document(record) for record in found.check(Path(path)).whole(path)]


def read_pairs(path: str | Path, schema: str) -> list[Pair]:
    """The preference pairs of a file.

    Raises:
      InputError: no such schema, one without pairs, or a bad record.
    """
    found = schema_named(schema)
    if found.pairs is None:
        allowed = ", ".join(name for name, one in SCHEMAS.items() if one.pairs is not None)
        raise InputError(f"schema {schema!r} holds no preference pairs; allowed: {allowed}")
    return [pair for record in found.check(Path(path)).whole(path) for pair in found.pairs(record)]

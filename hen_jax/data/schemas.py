"""Every schema hen_jax reads: name -> how a file is checked and what its records train.

One row here is all that a new data set needs beside its reader.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.data.candidates import Candidates, parse_candidates
from hen_jax.data.conversations import parse_completion, parse_conversation, parse_instruction
from hen_jax.data.cped import check_cped
from hen_jax.data.crossed import Crossing, crossed_conversation, crossed_pairs, parse_crossed
from hen_jax.data.empathetic_dialogues import EmpatheticDialogue, check_empathetic_dialogues
from hen_jax.data.esconv import SupportConversation, parse_esconv
from hen_jax.data.examples import Document
from hen_jax.data.hed import HedRecord, hed_conversation, parse_hed
from hen_jax.data.patterns import contexts_beside
from hen_jax.data.preferences import (
    Labelled,
    Pair,
    Rated,
    hed_pairs,
    parse_labelled,
    parse_pair,
    parse_rated,
    steered_pair,
)
from hen_jax.data.rated import RatedDocument, rated_rows, rated_sense7
from hen_jax.data.records import LineOutcome, Parsed, collect, parse_each
from hen_jax.data.rows import Row
from hen_jax.data.sense7 import RatedConversation, check_sense7
from hen_jax.data.steered import SteeredRecord, parse_steered, steered_conversation
from hen_jax.text.conversation import Conversation, Message

Columns = Mapping[str, str]
"""The schema's name of a column -> the file's, for files that call it otherwise."""

AS_NAMED: Columns = {}


@dataclasses.dataclass(frozen=True)
class Schema:
    """How files of one kind are read."""

    check: Callable[[Path], Parsed[Any]]
    document: Callable[[Any], Document]
    pairs: Callable[[Any], list[Pair]] | None = None  # for preference data
    rated: Callable[[Any], RatedDocument | None] | None = None  # for ratings; None: not rated
    labels: Callable[[Any], dict[str, str]] = lambda record: {}  # what tables count
    rows: Callable[[Path, Columns], Iterator[LineOutcome[Any]]] | None = None
    """Row by row, where one row is one record: None for files of which several make one."""


def _hed_document(record: HedRecord) -> Document:
    return Document(record.id, record.statement_id, hed_conversation(record))


def _steered_document(record: SteeredRecord) -> Document:
    return Document(record.id, record.group, steered_conversation(record))


def _pair_document(record: Pair) -> Document:
    return Document(record.id, record.group, record.conversations()[0])


def _plain_document(record: Labelled | Rated) -> Document:
    return Document(record.id, record.group, record.conversation)


def _crossed_document(record: Crossing) -> Document:
    return Document(record.id, record.group, crossed_conversation(record))


def _candidates_document(record: Candidates) -> Document:
    reply = Message("assistant", record.gold)
    return Document(record.id, record.group, Conversation((*record.prompt, reply)))


def _hed_labels(record: HedRecord) -> dict[str, str]:
    return {
        "task": record.task,
        "language": record.language,
        "emotion": record.emotion,
        "role": record.role or "none",
        "personality": record.personality or "none",
    }


def _by_row(
    parse: Callable[..., Any],
    document: Callable[[Any], Document],
    *,
    number: bool,
    in_contexts: bool = False,
    **more: Any,
) -> Schema:
    """A schema in which one row is one record.

    Args:
      parse: from a row to a record.
      document: what a record trains.
      number: the file need not name its records.
      in_contexts: `parse` is also given the contexts that the file's folder has.
      more: other fields of `Schema`.
    """

    def rows(path: Path, columns: Columns) -> Iterator[LineOutcome[Any]]:
        own = partial(parse, contexts=contexts_beside(path)) if in_contexts else parse
        named = own if not columns else lambda row: own(renamed(row, columns))
        return parse_each(path, named, lambda record: record.id, number=number)

    return Schema(lambda path: collect(rows(path, AS_NAMED)), document, rows=rows, **more)


def renamed(row: Row, columns: Columns) -> Row:
    """The row under the schema's names.

    Raises:
      InputError: a column that the file lacks, or one whose name another column has already.
    """
    theirs = set(columns.values())
    found = {key: value for key, value in row.items() if key not in theirs}
    for ours, name in columns.items():
        if ours in found:
            raise InputError(f"{ours}: in the file too, and columns calls {name!r} so; keep one")
        if name in row:
            found[ours] = row[name]
    if not found.keys() & columns.keys():
        raise InputError(f"{', '.join(theirs)}: missing; columns names what this row does not have")
    return found


def _itself(record: Document) -> Document:
    return record


SCHEMAS: dict[str, Schema] = {
    "hed": _by_row(parse_hed, _hed_document, number=False, pairs=hed_pairs, labels=_hed_labels),
    "steered": _by_row(
        parse_steered,
        _steered_document,
        number=False,
        in_contexts=True,
        pairs=lambda record: [steered_pair(record)],
        labels=lambda record: {
            "context": record.context,
            "task": record.task,
            "fault": str(record.fault),
        },
    ),
    "crossed": _by_row(
        parse_crossed,
        _crossed_document,
        number=False,
        in_contexts=True,
        pairs=crossed_pairs,
        labels=lambda record: {"crossing": record.kind, "language": record.language},
    ),
    "messages": _by_row(parse_conversation, _itself, number=True),
    "sharegpt": _by_row(parse_conversation, _itself, number=True),
    "smilechat": _by_row(parse_conversation, _itself, number=True),
    "completion": _by_row(parse_completion, _itself, number=True),
    "alpaca": _by_row(parse_instruction, _itself, number=True),
    "preference": _by_row(parse_pair, _pair_document, number=True, pairs=lambda record: [record]),
    "label": _by_row(
        parse_labelled,
        _plain_document,
        number=True,
        labels=lambda record: {"label": str(record.label)},
    ),
    "candidates": _by_row(parse_candidates, _candidates_document, number=True),
    "rating": _by_row(
        parse_rated,
        _plain_document,
        number=True,
        rated=rated_rows,
        labels=lambda record: {"rating": f"{record.rating:.2f}"},
    ),
    "esconv": _by_row(
        parse_esconv,
        SupportConversation.document,
        number=True,
        labels=lambda record: {"emotion": record.emotion, "problem": record.problem},
    ),
    "empathetic_dialogues": Schema(
        check_empathetic_dialogues,
        EmpatheticDialogue.document,
        labels=lambda record: {"emotion": record.emotion},
    ),
    "cped": Schema(check_cped, _hed_document, labels=_hed_labels),
    "sense7": Schema(
        check_sense7,
        RatedConversation.document,
        rated=rated_sense7,
        labels=lambda record: {"task": record.task, "model": record.model},
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


def read_documents(path: str | Path, schema: str, columns: Columns = AS_NAMED) -> list[Document]:
    """What a file of that schema trains.

    Raises:
      InputError: no such schema, or a bad record (file:line:field).
    """
    document = schema_named(schema).document
    return [document(record) for record in read_records(path, schema, columns)]


def stream_documents(
    path: str | Path, schema: str, columns: Columns = AS_NAMED
) -> Iterator[Document]:
    """`read_documents` one by one: of files with a record in each row, one is in memory at a time.

    Raises:
      InputError: no such schema, or the first bad record, when its turn comes.
    """
    found = schema_named(schema)
    if found.rows is None:
        yield from read_documents(path, schema, columns)
        return
    for _, record, problem in found.rows(Path(path), columns):
        if problem is not None:
            raise InputError(f"{problem}; `hen data validate` lists all that are bad")
        yield found.document(record)


def read_pairs(path: str | Path, schema: str, columns: Columns = AS_NAMED) -> list[Pair]:
    """The preference pairs of a file.

    Raises:
      InputError: no such schema, one without pairs, or a bad record.
    """
    pairs = pairs_of(schema)
    return [pair for record in read_records(path, schema, columns) for pair in pairs(record)]


def pairs_of(schema: str) -> Callable[[Any], list[Pair]]:
    """How the records of a schema become preference pairs.

    Raises:
      InputError: no such schema, or one without pairs.
    """
    pairs = schema_named(schema).pairs
    if pairs is None:
        allowed = ", ".join(name for name, one in SCHEMAS.items() if one.pairs is not None)
        raise InputError(f"schema {schema!r} holds no preference pairs; allowed: {allowed}")
    return pairs


def rated_of(schema: str) -> Callable[[Any], RatedDocument | None]:
    """How the records of a schema become rated conversations.

    Raises:
      InputError: no such schema, or one without ratings.
    """
    rated = schema_named(schema).rated
    if rated is None:
        allowed = ", ".join(name for name, one in SCHEMAS.items() if one.rated is not None)
        raise InputError(f"schema {schema!r} holds no ratings; allowed: {allowed}")
    return rated


def check_records(path: str | Path, schema: str, columns: Columns = AS_NAMED) -> Parsed[Any]:
    """The records of a file of that schema, and its problems.

    Raises:
      InputError: no such schema, columns for one that fixes its own, or a file that cannot be read.
    """
    found = schema_named(schema)
    if found.rows is not None:
        return collect(found.rows(Path(path), columns))
    if columns:
        raise InputError(f"columns of the schema {schema!r}: its files have fixed names; leave out")
    return found.check(Path(path))


def read_records(path: str | Path, schema: str, columns: Columns = AS_NAMED) -> list[Any]:
    """The records of a file of that schema in which every row is good.

    Raises:
      InputError: as `check_records`; names the first bad row and how many others there are.
    """
    return check_records(path, schema, columns).whole(path)

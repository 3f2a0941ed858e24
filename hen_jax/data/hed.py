"""High-context empathy records (HED-style): a statement, its conditions, the reply to give.

The official file format is not public; the schema is ours, and the shipped `samples/hed` has it.
"""

import dataclasses
from pathlib import Path
from typing import cast

from hen_jax.data import fields
from hen_jax.data.jsonl import Parsed, Row, parse_records, read_records
from hen_jax.empathy.labels import (
    EMOTIONS,
    LANGUAGES,
    PERSONALITIES,
    REJECTED_KINDS,
    ROLES,
    TASKS,
    Language,
)
from hen_jax.text.conversation import Conversation, Message, Role
from hen_jax.text.prompts import hed_messages


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A worse reply, and why it is worse."""

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class HedRecord:
    """One statement under one task's conditions, in one language."""

    id: str
    statement_id: str  # the split group: all tasks and languages of one statement share it
    task: str
    language: Language
    emotion: str
    role: str | None  # of the one who replies
    personality: str | None  # of the one who replies
    statement: str
    response: str
    rejected: tuple[Rejected, ...] = ()
    history: tuple[Message, ...] = ()  # turns before the statement


def read_hed(path: str | Path) -> list[HedRecord]:
    """The records of a HED-style JSON-lines file.

    Raises:
      InputError: `file:line:field: what; allowed: ...` of the first bad line, with the count of
        the others.
    """
    return read_records(path, parse_hed, lambda record: record.id)


def check_hed(path: str | Path) -> Parsed[HedRecord]:
    """The good records of a file beside the problem of each bad line."""
    return parse_records(path, parse_hed, lambda record: record.id)


def hed_conversation(record: HedRecord) -> Conversation:
    """The record as a conversation that ends with the reply to learn."""
    return Conversation((*hed_prompt(record), Message("assistant", record.response)))


def hed_prompt(record: HedRecord) -> tuple[Message, ...]:
    """The record's messages up to the reply."""
    return hed_messages(
        record.statement,
        emotion=record.emotion,
        role=record.role,
        personality=record.personality,
        language=record.language,
        history=record.history,
    )


def parse_hed(row: Row) -> HedRecord:
    """One JSON object as a record.

    `statement_id` may be left out: the statement itself then groups its records.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    fields.known_keys(
        row,
        required=("id", "task", "lang", "emotion", "statement", "response"),
        optional=("statement_id", "role", "personality", "rejected", "history"),
    )
    row = {"rejected": [], "history": [], **row}
    task = fields.label_field(row, "task", TASKS)
    statement = fields.text_field(row, "statement")
    gives = TASKS[task]
    return HedRecord(
        id=fields.text_field(row, "id"),
        statement_id=fields.text_field(row, "statement_id") if "statement_id" in row else statement,
        task=task,
        language=cast(Language, fields.label_field(row, "lang", LANGUAGES)),
        emotion=fields.label_field(row, "emotion", EMOTIONS),
        role=fields.conditional_label(row, "role", ROLES, given=gives.role),
        personality=fields.conditional_label(
            row, "personality", PERSONALITIES, given=gives.personality
        ),
        statement=statement,
        response=fields.text_field(row, "response"),
        rejected=fields.items_field(row, "rejected", _parse_rejected),
        history=fields.items_field(row, "history", _parse_message),
    )


def _parse_rejected(row: Row) -> Rejected:
    fields.known_keys(row, required=("kind", "text"))
    return Rejected(fields.label_field(row, "kind", REJECTED_KINDS), fields.text_field(row, "text"))


def _parse_message(row: Row) -> Message:
    fields.known_keys(row, required=("role", "content"))
    role = fields.label_field(row, "role", ("user", "assistant"))
    return Message(cast(Role, role), fields.text_field(row, "content"))

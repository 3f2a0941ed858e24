"""High-context empathy records (HED-style): a statement, its conditions, the reply to give.

The official file format is not public; the schema is ours, and the shipped `samples/hed` has it.
"""

import dataclasses
from typing import cast

from hen_jax.data import fields
from hen_jax.data.rows import Row
from hen_jax.empathy.labels import (
    EMOTIONS,
    LANGUAGES,
    PERSONALITIES,
    REJECTED_KINDS,
    ROLE_WORDS,
    TASKS,
    Language,
)
from hen_jax.empathy.traits import AGES, GENDERS, SCENES, TRAITS, Level
from hen_jax.text.conversation import Conversation, Message, Role, message_row
from hen_jax.text.prompts import NO_CIRCUMSTANCES, Circumstances, hed_messages


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
    circumstances: Circumstances = NO_CIRCUMSTANCES  # traits, age, gender, scene (CPED)


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
        circumstances=record.circumstances,
    )


def parse_hed(row: Row) -> HedRecord:
    """One JSON object as a record.

    `statement_id` may be left out: the statement itself then groups its records. A task that
    gives a personality may give `traits` of the Big Five in place of an MBTI type.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    fields.known_keys(
        row,
        required=("id", "task", "lang", "emotion", "statement", "response"),
        optional=("statement_id", "role", "personality", "rejected", "history", *_CIRCUMSTANCES),
    )
    row = {"rejected": [], "history": [], **row}
    task = fields.label_field(row, "task", TASKS)
    statement = fields.text_field(row, "statement")
    gives = TASKS[task]
    circumstances = _circumstances(row)
    return HedRecord(
        id=fields.text_field(row, "id"),
        statement_id=fields.text_field(row, "statement_id") if "statement_id" in row else statement,
        task=task,
        language=cast(Language, fields.label_field(row, "lang", LANGUAGES)),
        emotion=fields.label_field(row, "emotion", EMOTIONS),
        role=fields.conditional_label(row, "role", ROLE_WORDS, given=gives.role),
        personality=fields.conditional_label(
            row,
            "personality",
            PERSONALITIES,
            given=gives.personality and not circumstances.traits,
        ),
        statement=statement,
        response=fields.text_field(row, "response"),
        rejected=fields.items_field(row, "rejected", _parse_rejected),
        history=fields.items_field(row, "history", parse_message),
        circumstances=circumstances,
    )


def hed_row(record: HedRecord) -> Row:
    """The record as the JSON object that `parse_hed` reads back."""
    given = record.circumstances
    optional = {
        "traits": dict(given.traits),
        "age": given.age,
        "gender": given.gender,
        "scene": given.scene,
    }
    return {
        "id": record.id,
        "statement_id": record.statement_id,
        "task": record.task,
        "lang": record.language,
        "emotion": record.emotion,
        "role": record.role,
        "personality": record.personality,
        "statement": record.statement,
        "response": record.response,
        "rejected": [dataclasses.asdict(rejected) for rejected in record.rejected],
        "history": [message_row(message) for message in record.history],
        **{key: value for key, value in optional.items() if value},
    }


_CIRCUMSTANCES = ("traits", "age", "gender", "scene")


def _circumstances(row: Row) -> Circumstances:
    """Conditions that only CPED gives; each may be null or left out."""

    def levels(traits: Row) -> tuple[tuple[str, Level], ...]:
        fields.known_keys(traits, required=(), optional=TRAITS)
        return tuple(
            (trait, cast(Level, fields.label_field(traits, trait, TRAITS[trait])))
            for trait in traits
        )

    allowed = {"age": AGES, "gender": GENDERS, "scene": SCENES}
    labels = {
        key: fields.label_field(row, key, allowed[key])
        for key in allowed
        if row.get(key) is not None
    }
    traits = fields.item_field(row, "traits", levels) if row.get("traits") else ()
    return Circumstances(traits=traits, **labels)


def _parse_rejected(row: Row) -> Rejected:
    fields.known_keys(row, required=("kind", "text"))
    return Rejected(fields.label_field(row, "kind", REJECTED_KINDS), fields.text_field(row, "text"))


def parse_message(row: Row) -> Message:
    """One `{role, content}` object of a history."""
    fields.known_keys(row, required=("role", "content"))
    role = fields.label_field(row, "role", ("user", "assistant"))
    return Message(cast(Role, role), fields.text_field(row, "content"))

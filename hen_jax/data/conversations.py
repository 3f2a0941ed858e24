"""Conversations as others store them: messages, ShareGPT, SMILECHAT, prompt and completion.

The column names are those of TRL and `datasets`, so what trains there loads here. Columns that a
schema does not name are left alone, as they are there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.examples import Document
from hen_jax.data.records import Parsed, parse_records
from hen_jax.data.rows import Row
from hen_jax.text.conversation import Conversation, Message, Role

SPEAKERS: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "client": "user",
    "seeker": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "counselor": "assistant",
    "supporter": "assistant",
}
"""What each data set calls the two speakers. Tool calls have no place in these conversations."""

_KEYS = {"messages": ("role", "content"), "conversations": ("from", "value")}
"""The column of turns, and the keys of a turn in it."""


def check_conversations(path: str | Path) -> Parsed[Document]:
    """Documents of a file of `messages` (also SMILECHAT) or ShareGPT `conversations` rows.

    A row may give `id` and `group`; without them it is called by its line, and rows that begin
    with the same words of the user form a group, so that no split parts them.

    Raises:
      InputError: the file cannot be read at all.
    """
    return parse_records(path, parse_conversation, document_id, number=True)


def check_completions(path: str | Path) -> Parsed[Document]:
    """Documents of a file of `prompt` and `completion` rows, as texts or as messages.

    Raises:
      InputError: the file cannot be read at all.
    """
    return parse_records(path, parse_completion, document_id, number=True)


def parse_conversation(row: Row) -> Document:
    """One row with `messages` or `conversations` as a document.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    for column in _KEYS:
        if column in row:
            return document(row, messages_field(row, column))
    raise InputError("messages: missing; every row needs messages, or conversations (ShareGPT)")


def parse_completion(row: Row) -> Document:
    """One row with `prompt` and `completion` as a document.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    return document(row, (*turns(row, "prompt", "user"), *turns(row, "completion", "assistant")))


def document(row: Row, messages: tuple[Message, ...]) -> Document:
    """The messages under the row's own `id` and `group`, or the group of what the user said first.

    Raises:
      InputError: no assistant turn to learn from, or messages that are no conversation.
    """
    if all(message.role != "assistant" for message in messages):
        raise InputError("messages: no assistant turn; nothing of this row would train")
    return Document(text_of(row, "id"), group_of(row, messages), Conversation(messages))


def document_id(record: Document) -> str:
    """What errors call the document."""
    return record.id


def group_of(row: Row, messages: tuple[Message, ...]) -> str:
    """The row's `group`, or what the user says first."""
    if "group" in row:
        return text_of(row, "group")
    said = [message.content for message in messages if message.role == "user"]
    return said[0] if said else messages[0].content


def text_of(row: Row, key: str) -> str:
    """A name that some files write as a number."""
    if isinstance(row[key], int) and not isinstance(row[key], bool):
        return str(row[key])
    return fields.text_field(row, key)


def turns(row: Row, key: str, role: Role) -> tuple[Message, ...]:
    """A field that is a text, which `role` says, or a list of messages.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    if key not in row:
        raise InputError(f"{key}: missing; give a text or a list of messages")
    if isinstance(row[key], str) and not row[key].lstrip().startswith("["):
        return (Message(role, fields.text_field(row, key)),)
    return messages_field(row, key)


def messages_field(row: Row, key: str) -> tuple[Message, ...]:
    """A list of `{role, content}`, or of ShareGPT's `{from, value}`.

    Raises:
      InputError: `field: what; allowed: ...`; also for a list without a message.
    """
    speaker, said = _KEYS.get(key, _KEYS["messages"])

    def message(item: Row) -> Message:
        name = fields.label_field(item, speaker, SPEAKERS)
        return Message(cast(Role, SPEAKERS[name]), fields.text_field(item, said))

    messages = fields.items_field(row, key, message)
    if not messages:
        raise InputError(f"{key}: empty; allowed: at least one message")
    if any(message.role == "system" for message in messages[1:]):
        raise InputError(f"{key}: a system message after the first; allowed: only the first")
    return messages

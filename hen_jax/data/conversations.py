"""Conversations as others store them: messages, ShareGPT, SMILECHAT, completions, instructions.

The column names are those of TRL and `datasets`, so what trains there loads here. What a row or a
turn says in other keys is read, refused or left alone as `hen_jax.data.outside` has it.
"""

from collections.abc import Mapping
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.data import fields, outside
from hen_jax.data.examples import Document
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
    "model": "assistant",
    "counselor": "assistant",
    "supporter": "assistant",
    "tool": "tool",
    "observation": "tool",
}
"""What each data set calls the speakers. A tool's answer is only read; a call of the assistant's is
whatever its turn says, and calls in keys of their own are refused (`data.outside`)."""

COLUMNS = ("messages", "conversations")
"""The columns that hold the turns of a conversation."""

_SPEAKER, _SAID = ("role", "from"), ("content", "value")


def parse_conversation(row: Row) -> Document:
    """One row with `messages` or `conversations` as a document.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    messages = conversation_of(row)
    if messages[-1].role == "user" and outside.says(row.get("chosen")):
        raise InputError("chosen: a preference pair; read the file with the schema preference")
    return document(row, messages)


def parse_completion(row: Row) -> Document:
    """One row with `prompt` and `completion` as a document.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    return document(row, completion_turns(row))


def parse_instruction(row: Row) -> Document:
    """One row of Alpaca's columns as a document: `instruction`, `input`, `output`.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    outside.refuse(row, outside.IN_ROWS)
    reply = Message("assistant", fields.text_field(row, "output"))
    return document(row, (*earlier_turns(row), instruction_of(row), reply))


def completion_turns(row: Row) -> tuple[Message, ...]:
    """`prompt` and `completion`, after the row's `system` and `history`.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    outside.refuse(row, outside.IN_ROWS)
    said = (*turns(row, "prompt", "user"), *turns(row, "completion", "assistant"))
    return with_opening(row, said, "prompt")


def conversation_of(row: Row) -> tuple[Message, ...]:
    """`messages` or `conversations`, after the row's `system`.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    outside.refuse(row, outside.IN_ROWS)
    column = next((one for one in COLUMNS if one in row), None)
    if column is None:
        raise InputError("messages: missing; every row needs messages, or conversations (ShareGPT)")
    if outside.says(row.get("history")):
        raise InputError(f"history: beside {column}; write these turns at the head of {column}")
    return with_opening(row, messages_field(row, column), column)


def with_opening(row: Row, said: tuple[Message, ...], column: str) -> tuple[Message, ...]:
    """Turns after the row's `system` and `history`.

    Raises:
      InputError: a second system message that says something else.
    """
    head = earlier_turns(row)
    if said and said[0].role == "system":
        if head and head[0].role == "system":
            if head[0] != said[0]:
                raise InputError(f"system: {column} begins with another system turn; keep one")
            head = head[1:]
        return (said[0], *head, *said[1:])
    return (*head, *said)


def earlier_turns(row: Row) -> tuple[Message, ...]:
    """What a row puts before its turns: `system`, and `history` as `[asked, replied]` pairs.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    found: list[Message] = []
    if outside.says(row.get("system")):
        found.append(Message("system", fields.text_field(row, "system")))
    history = fields.from_text(row.get("history"))
    if not outside.says(history):
        return tuple(found)
    if are_messages(history):
        return (*found, *messages_field(row, "history"))
    if not isinstance(history, list):
        raise InputError("history: not a list; allowed: a list of [asked, replied] pairs")
    for at, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"history[{at}]: no pair of texts; allowed: [asked, replied]")
        named = {f"history[{at}][{place}]": said for place, said in enumerate(pair)}
        asked, replied = (fields.text_field(named, key) for key in named)
        found += [Message("user", asked), Message("assistant", replied)]
    return tuple(found)


def instruction_of(row: Row) -> Message:
    """`instruction`, and `input` on a line below it.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    if "instruction" not in row:
        raise InputError("instruction: missing; give a text")
    asked = fields.text_field(row, "instruction")
    if outside.says(row.get("input")):
        asked = f"{asked}\n{fields.text_field(row, 'input')}"
    return Message("user", asked)


def document(row: Row, messages: tuple[Message, ...]) -> Document:
    """The messages under the row's own `id` and `group`, or the group of what the user said first.

    Raises:
      InputError: no assistant turn to learn from, a row marked as good or bad, or messages that are
        no conversation.
    """
    replies = [message for message in messages if message.role == "assistant"]
    if not replies:
        raise InputError("messages: no assistant turn; nothing of this row would train")
    if all(message.trains is False for message in replies):
        raise InputError("messages: no reply is marked to train; nothing of this row would train")
    if isinstance(row.get("label"), bool):
        raise InputError("label: says whether the reply is good; read it with the schema label")
    return Document(fields.name_field(row, "id"), group_of(row, messages), Conversation(messages))


def document_id(record: Document) -> str:
    """What errors call the document."""
    return record.id


def group_of(row: Row, messages: tuple[Message, ...]) -> str:
    """The row's `group`, or what the user says first."""
    if "group" in row:
        return fields.name_field(row, "group")
    said = [message.content for message in messages if message.role == "user"]
    return said[0] if said else messages[0].content


def turns(row: Row, key: str, role: Role) -> tuple[Message, ...]:
    """A field that is a text, which `role` says, a message, or a list of messages.

    A text that begins with a bracket is a text, unless it is the JSON of messages, as a CSV cell
    must write them.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    if key not in row:
        raise InputError(f"{key}: missing; give a text or a list of messages")
    value = fields.from_text(row[key])
    if isinstance(row[key], str) and not are_messages(value):
        return (Message(role, fields.text_field(row, key)),)
    if isinstance(value, dict):
        return messages_field({key: [value]}, key)
    return messages_field(row, key)


def are_messages(value: Any) -> bool:
    """Whether a value is a list of objects of which each names a speaker."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and one.keys() & set(_SPEAKER) for one in value)
    )


def messages_field(row: Row, key: str) -> tuple[Message, ...]:
    """A list of `{role, content}`, or of ShareGPT's `{from, value}`.

    Raises:
      InputError: `field: what; allowed: ...`; also for a list without a message.
    """
    messages = fields.items_field(row, key, message)
    if not messages:
        raise InputError(f"{key}: empty; allowed: at least one message")
    if any(message.role == "system" for message in messages[1:]):
        raise InputError(f"{key}: a system message after the first; allowed: only the first")
    return messages


def message(item: Row) -> Message:
    """One turn with what it says, thinks and trains.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    speaker, said = _one_of(item, _SPEAKER), _one_of(item, _SAID)
    name = item.get(speaker)
    known = name.strip().lower() if isinstance(name, str) else ""
    if known not in SPEAKERS:
        outside.refuse(item, outside.IN_TURNS)
        fields.label_field(item, speaker, SPEAKERS)
    role = SPEAKERS[known]
    if len(item) == 2 and isinstance(item.get(said), str) and item[said][:1] != "[":
        return Message(role, fields.text_field(item, said))  # nothing but who speaks and what
    outside.refuse(item, outside.IN_TURNS)
    thought = outside.thought_of(item)
    if thought and role != "assistant":
        raise InputError(f"{speaker}: a turn of the {role} with a thought; only replies have one")
    words = fields.text_field(outside.text_of_parts(item, said), said)
    return Message(
        role, words, thought if role == "assistant" else None, outside.trains(item, role)
    )


def _one_of(item: Row, keys: tuple[str, str]) -> str:
    """The key that the turn has, the first of them where it has none."""
    first, second = keys
    if second not in item:
        return first
    if first in item and item[first] != item[second]:
        raise InputError(f"{second}: beside {first}; keep one of them")
    return first if first in item else second

"""What a record says outside the words of its turns: rendered, refused by name, or nothing.

The rule, once, for rows of conversations, completions, instructions, pairs, labels and ratings:

1. A key that changes what is said or what trains is rendered as the model's own chat template
   renders it, or the row is refused with the key's name. The tables below hold those that TRL,
   LLaMA-Factory, axolotl, ms-swift, OpenAI and ShareGPT document. A key that is null, blank, or an
   empty list or object says nothing and is allowed.
2. Any other key is about the record (`source`, `lang`, `score`, ...) and is left alone. `hen data
   validate` counts these, so that a misspelt one is seen.
"""

import json
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.tables import Row


class Refused(NamedTuple):
    """Why a key is refused, and the values with which it says nothing."""

    why: str
    neutral: tuple[Any, ...] = ()


_TOOLS = Refused("no chat format here writes tools down; remove them, or put them into a turn")
_TEXT_ONLY = Refused("only text is read; describe it in a turn, or remove the key")
_PAIRS = Refused("is half of a preference pair; read the file with the schema preference")
_TOKENS = Refused("rows are read as text, and what trains is marked on each turn with `train`")
_PER_TURN = "marks a whole row; mark each turn with `train`, or leave the row out"

IN_ROWS: Mapping[str, Refused] = {
    "tools": _TOOLS,
    "functions": _TOOLS,
    "images": _TEXT_ONLY,
    "image": _TEXT_ONLY,
    "videos": _TEXT_ONLY,
    "video": _TEXT_ONLY,
    "audios": _TEXT_ONLY,
    "audio": _TEXT_ONLY,
    "objects": _TEXT_ONLY,
    "documents": Refused("no chat format here writes documents down; put them into a turn"),
    "system_prompt": Refused("call the column `system`, so that it is read as the system turn"),
    "system_message": Refused("call the column `system`, so that it is read as the system turn"),
    "chat_template": Refused("the model's own chat template is used; remove the key"),
    "chat_template_kwargs": Refused(
        "the model's template is used as it is; remove the key", ({"enable_thinking": False},)
    ),
    "rejected_response": _PAIRS,
    "rejected_messages": _PAIRS,
    "kto_tag": Refused("says whether the reply is good; read the file with the schema label"),
    "train": Refused(_PER_TURN, (True,)),
    "training": Refused(_PER_TURN, (True,)),
    "trainable": Refused(_PER_TURN, (True,)),
    "train_on_turn": Refused(_PER_TURN, (True,)),
    "masked": Refused(_PER_TURN, (False,)),
    "mask": Refused(_PER_TURN, ("user", "human")),  # NeMo: whose turns do not train
    "loss_mask": Refused(_PER_TURN),
    "weight": Refused("rows weigh alike; weigh a whole file with `weight` in its source", (1,)),
    "loss_weight": Refused("rows weigh alike; weigh a whole file with `weight`", (1,)),
    "mask_history": Refused(_PER_TURN, (False,)),
    "train_on_input": Refused("only replies train; remove the key", (False,)),
    "train_on_inputs": Refused("only replies train; remove the key", (False,)),
    "input_ids": _TOKENS,
    "completion_mask": _TOKENS,
    "assistant_masks": _TOKENS,
    "segments": Refused("text without a chat format is not read; write the turns as `messages`"),
}
"""Columns that change what is said or trained, beside those that a schema reads."""

IN_PAIRS: Mapping[str, Refused] = {
    key: value for key, value in IN_ROWS.items() if value is not _PAIRS
}

IN_TURNS: Mapping[str, Refused] = {
    "tool_calls": _TOOLS,
    "function_call": _TOOLS,
    "tool_responses": _TOOLS,
    "tool_call_id": _TOOLS,
    "refusal": Refused("was said in place of the content; write it as the content"),
    "images": _TEXT_ONLY,
    "image": _TEXT_ONLY,
    "videos": _TEXT_ONLY,
    "video": _TEXT_ONLY,
    "audios": _TEXT_ONLY,
    "audio": _TEXT_ONLY,
    "documents": IN_ROWS["documents"],
    "train_detail": Refused("a turn trains whole or not at all; mark it with `train`"),
    "training_detail": Refused("a turn trains whole or not at all; mark it with `train`"),
    "loss_scale": Refused("a turn trains whole or not at all; mark it with `train`", (1,)),
    "prefix": Refused("a reply trains whole; remove the key", (False,)),
    "partial": Refused("a reply trains whole; remove the key", (False,)),
    "channel": Refused("no chat format here has channels; write a thought as reasoning_content"),
    "recipient": _TOOLS,
}
"""Keys of a turn that change what is said or trained and cannot be rendered."""

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")
"""Keys of a turn that hold what the assistant thought before it spoke."""

TRAINS: Mapping[str, bool] = {
    "train": True,
    "training": True,
    "trainable": True,
    "train_on_turn": True,
    "loss": True,
    "loss_mask": True,
    "weight": True,
    "masked": False,
    "mask": False,
}
"""Keys of a turn that say whether it trains, and what true means there."""


def refuse(row: Row, refused: Mapping[str, Refused]) -> None:
    """Raises `InputError` on a key of the table that says something."""
    for key in refused.keys() & row.keys():
        value = fields.from_text(row[key].lower() if isinstance(row[key], str) else row[key])
        if says(value) and value not in refused[key].neutral:
            raise InputError(f"{key}: {refused[key].why}")


def says(value: Any) -> bool:
    """Whether a value is more than null, a blank text, or an empty list or object."""
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null")
    if isinstance(value, dict):
        return any(says(item) for item in value.values())
    if isinstance(value, list):
        return any(says(item) for item in value)
    return value is not None


def unread(row: Row, read: Set[str]) -> set[str]:
    """The keys of a row that say something and that nobody reads, those of turns as `turns.key`."""
    found = {key for key in row if key not in read and says(row[key])}
    for column in read & _TURNS:
        for turn in row[column] if isinstance(row.get(column), list) else ():
            if isinstance(turn, dict) and not turn.keys() <= _IN_TURN:
                found |= {f"{column}.{key}" for key in turn.keys() - _IN_TURN if says(turn[key])}
    return found


_TURNS = frozenset({"messages", "conversations"})
_IN_TURN = frozenset({"role", "from", "content", "value", *THOUGHTS, *TRAINS, *IN_TURNS})


def thought_of(turn: Row) -> str | None:
    """What the assistant thought, apart from the content; None where the turn does not say.

    Raises:
      InputError: two keys that say different things.
    """
    found = {
        key: "" if turn[key] == "" else fields.text_field(turn, key)
        for key in THOUGHTS
        if turn.get(key) is not None
    }
    if len(set(found.values())) > 1:
        raise InputError(f"{' and '.join(found)}: differ; keep one")
    return next(iter(found.values()), None)


def trains(turn: Row, role: str) -> bool | None:
    """Whether the turn trains; None where it does not say.

    Raises:
      InputError: two keys that contradict, a share of training, or a user's turn that trains.
    """
    found = {
        key: fields.truth_field(turn, key) is means
        for key, means in TRAINS.items()
        if turn.get(key) is not None
    }
    if len(set(found.values())) > 1:
        raise InputError(f"{' and '.join(found)}: contradict each other; keep one")
    said = next(iter(found.values()), None)
    if role == "assistant":
        return said
    if said:
        raise InputError(f"{next(iter(found))}: only replies train; remove it from the {role} turn")
    return None


def text_of_parts(turn: Row, key: str) -> Row:
    """The turn with a list of text parts joined into one text, as templates write them.

    Raises:
      InputError: a part that is no text.
    """
    parts = turn.get(key)
    if isinstance(parts, str) and parts.startswith('[{"type"'):  # as a CSV cell must
        try:
            parts = json.loads(parts)
        except ValueError:
            return turn
    if not isinstance(parts, list):
        return turn
    texts = []
    for at, part in enumerate(parts):
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            what = repr(kind) if kind else "no object"
            raise InputError(f"{key}[{at}]: a part of type {what}; only parts of text are read")
        texts.append(part["text"])
    return {**turn, key: "".join(texts)}

"""Steered conversations: one user side, a chosen and a rejected assistant side.

After the steered preference sets of the empathetic expert adapters: the chosen branch follows the
context's empathy pattern, the rejected one does not. The schema is ours.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.rows import Row
from hen_jax.empathy.clusters import CONTEXTS, Context
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.prompts import context_message

Branch = Literal["chosen", "rejected"]

FAULTS: tuple[str, ...] = ("misreads", "forgets", "wrong_level", "wrong_time")
"""How the rejected branch of a hard pair fails, in a style like the chosen one's."""

HARD_SUFFIX = "-hard"


@dataclasses.dataclass(frozen=True)
class Persona:
    """Who the user is."""

    age_band: str
    occupation: str
    temperament: str
    need: str


@dataclasses.dataclass(frozen=True)
class SteeredTurn:
    """What the user says and the two replies; both branches see the same user side."""

    user: str
    chosen: str
    rejected: str


@dataclasses.dataclass(frozen=True)
class SteeredRecord:
    """A pair of conversations in one context."""

    id: str
    context: str
    task: str
    persona: Persona
    target_level: float  # desired empathy in [0, 1]
    turns: tuple[SteeredTurn, ...]
    fault: str | None = None  # hard pairs only

    @property
    def group(self) -> str:
        """The split group: a hard pair shares its turns with the pair it was made from."""
        return self.id.removesuffix(HARD_SUFFIX)


def steered_conversation(
    record: SteeredRecord, branch: Branch = "chosen", *, prompted: bool = False
) -> Conversation:
    """One branch; `prompted` puts the context's empathy pattern before it as a system message.

    Training leaves it out: an expert adapter is to hold the pattern without being told.
    """
    messages = [context_message(record.context)] if prompted else []
    for turn in record.turns:
        reply = {"chosen": turn.chosen, "rejected": turn.rejected}[branch]
        messages += [Message("user", turn.user), Message("assistant", reply)]
    return Conversation(tuple(messages))


def parse_steered(row: Row, contexts: Mapping[str, Context] = CONTEXTS) -> SteeredRecord:
    """One JSON object as a record, in one of `contexts`.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    fields.known_keys(
        row,
        required=("id", "cluster", "task", "persona", "target_level", "turns"),
        optional=("fault",),
    )
    context = fields.label_field(row, "cluster", contexts)
    task = fields.label_field(row, "task", [t for one in contexts.values() for t in one.tasks])
    if task not in contexts[context].tasks:
        allowed = ", ".join(contexts[context].tasks)
        raise InputError(f"task: {task!r} is not of the cluster {context!r}; allowed: {allowed}")
    turns = fields.items_field(row, "turns", _parse_turn)
    if not turns:
        raise InputError("turns: empty; allowed: at least one turn")
    return SteeredRecord(
        id=fields.text_field(row, "id"),
        context=context,
        task=task,
        persona=fields.item_field(row, "persona", _parse_persona),
        target_level=fields.number_field(row, "target_level", 0, 1),
        turns=turns,
        fault=fields.label_field(row, "fault", FAULTS) if "fault" in row else None,
    )


def _parse_turn(row: Row) -> SteeredTurn:
    return SteeredTurn(**_texts(row, ("user", "chosen", "rejected")))


def _parse_persona(row: Row) -> Persona:
    return Persona(**_texts(row, ("age_band", "occupation", "temperament", "need")))


def _texts(row: Row, keys: tuple[str, ...]) -> dict[str, str]:
    fields.known_keys(row, required=keys)
    return {key: fields.text_field(row, key) for key in keys}


def steered_row(record: SteeredRecord) -> dict[str, Any]:
    """The JSON object that `parse_steered` reads as this record."""
    row = {
        "id": record.id,
        "cluster": record.context,
        "task": record.task,
        "persona": dataclasses.asdict(record.persona),
        "target_level": record.target_level,
        "turns": [dataclasses.asdict(turn) for turn in record.turns],
    }
    return row if record.fault is None else row | {"fault": record.fault}

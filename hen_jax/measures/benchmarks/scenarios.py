"""Scenarios that are played turn by turn: what the user says is fixed, the assistant answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.rows import read_lines
from hen_jax.text.conversation import Chat, Message


class Scenario(NamedTuple):
    """What the user says, turn by turn."""

    id: str
    turns: tuple[str, ...]
    debrief: str = ""  # asked at the end, and not shown to a judge


def read_scenarios(path: Path) -> list[Scenario]:
    """Rows of `id`, `turns` (a list of texts) and perhaps `debrief`.

    Raises:
      InputError: a row that is none (`file:line: what`), or no row.
    """
    found = []
    for line, row, _, fault in read_lines(path):
        try:
            if row is None:
                raise InputError(fault)
            fields.known_keys(row, ("id", "turns"), ("debrief",))
            turns = row["turns"]
            if not isinstance(turns, list) or not turns or not all(map(_said, turns)):
                raise InputError("turns: allowed: a list of texts, what the user says")
            found.append(
                Scenario(fields.name_field(row, "id"), tuple(turns), row.get("debrief") or "")
            )
        except InputError as error:
            raise InputError(f"{path}:{line}:{error}") from None
    if not found:
        raise InputError(f"{path}: no scenario in this file")
    return found


def play_scenarios(scenarios: Sequence[Scenario], chat: Chat) -> dict[str, tuple[Message, ...]]:
    """The transcript of each scenario by its id; all scenarios go on together, turn by turn."""
    said: dict[str, tuple[Message, ...]] = {one.id: () for one in scenarios}
    for turn in range(max((len(one.turns) for one in scenarios), default=0)):
        active = [one for one in scenarios if turn < len(one.turns)]
        for one in active:
            said[one.id] += (Message("user", one.turns[turn]),)
        replies = chat([said[one.id] for one in active])
        for one, reply in zip(active, replies, strict=True):
            said[one.id] += (Message("assistant", reply.text),)
    return said


def _said(turn: object) -> bool:
    return isinstance(turn, str) and bool(turn.strip())

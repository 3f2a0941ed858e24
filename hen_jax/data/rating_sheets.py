"""Items to be rated: blind sheets in counterbalanced order, and the key that undoes both.

Every annotator gets a sheet of their own in an order of their own: one seeded order, begun at
another place for each sheet and run through backwards on every second one, so that no item is
always early or always late. Of each pair A is the first reply on every second sheet, and on each
sheet for half of the pairs. Names on a sheet are random and say nothing: only the key knows.
"""

import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.preferences import Pair
from hen_jax.data.rows import Row, read_lines
from hen_jax.data.votes import Kind, SheetKey, Shown
from hen_jax.text.conversation import Conversation, Message


class RatingItem(NamedTuple):
    """What is to be rated: a conversation, or two ways to go on from one."""

    id: str
    prompt: str
    replies: tuple[str, ...] = ()  # two, where one is to be chosen


class RatingSheetRow(NamedTuple):
    """A line of a sheet."""

    blind: str
    item: RatingItem
    exchanged: bool


def pair_item(pair: Pair) -> RatingItem:
    """A pair with `chosen` as its first reply."""
    replies = _transcript(pair.chosen), _transcript(pair.rejected)
    return RatingItem(pair.id, _transcript(pair.prompt), replies)


def conversation_item(name: str, conversation: Conversation) -> RatingItem:
    """A conversation, to be rated as a whole."""
    return RatingItem(name, _transcript(conversation.messages))


def _transcript(messages: Sequence[Message]) -> str:
    """Messages as people read them; one alone needs no name."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{one.role.upper()}: {one.content}" for one in messages)


def lay_out_sheets(
    items: Sequence[RatingItem], sheets: int, seed: int
) -> list[list[RatingSheetRow]]:
    """The lines of each sheet; with the same seed the same.

    With an even number of sheets each reply is A equally often, and with one item more or less on
    every sheet.
    """
    chance = random.Random(seed)
    order = list(range(len(items)))
    chance.shuffle(order)
    found = []
    for sheet in range(sheets):
        start = sheet * len(order) // sheets
        turned = [*order[start:], *order[:start]]
        if sheet % 2:
            turned.reverse()
        place = {at: number for number, at in enumerate(order)}
        found.append(
            [
                RatingSheetRow(
                    f"{chance.getrandbits(48):012x}", items[at], (place[at] + sheet) % 2 == 1
                )
                for at in turned
            ]
        )
    return found


def write_sheet(path: Path, rows: Iterable[RatingSheetRow], kind: Kind) -> None:
    """A sheet as CSV with a byte order mark, by which spreadsheets know UTF-8.

    The annotator fills in `choice` (a, b, tie, both bad) or `rating`; `comment` is not read.
    """
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        texts = ["prompt", "a", "b", "choice"] if kind == "choices" else ["conversation", "rating"]
        writer = csv.writer(file)
        writer.writerow(["number", "id", *texts, "comment"])
        for number, row in enumerate(rows, start=1):
            replies = row.item.replies[::-1] if row.exchanged else row.item.replies
            writer.writerow([number, row.blind, row.item.prompt, *replies, "", ""])


def write_key(path: Path, sheets: Sequence[str], rows: Sequence[Sequence[RatingSheetRow]]) -> None:
    """Which item stands under each blind name, and whether its replies are exchanged."""
    with path.open("w", encoding="utf-8") as file:
        for sheet, own in zip(sheets, rows, strict=True):
            for row in own:
                line = {"id": row.blind, "item": row.item.id, "sheet": sheet}
                file.write(json.dumps(line | {"exchanged": row.exchanged}, ensure_ascii=False))
                file.write("\n")


def read_key(path: Path) -> SheetKey:
    """The key of exported sheets.

    Raises:
      InputError: a line that is none of a key, or a blind name given twice.
    """
    found: dict[str, Shown] = {}
    for line, row, _, fault in read_lines(path):
        try:
            blind, shown = _key_line(row, fault)
        except InputError as error:
            told = f"{path}:{line}:{error}; give the key of the exported sheets"
            raise InputError(told) from None
        if blind in found:
            twice = f"{fields.shown(blind)} is given twice"
            raise InputError(f"{path}:{line}:id: {twice}; keep one key")
        found[blind] = shown
    return found


def _key_line(row: Row | None, fault: str) -> tuple[str, Shown]:
    if row is None:
        raise InputError(fault)
    fields.known_keys(row, ("id", "item", "sheet", "exchanged"))
    item, sheet = fields.name_field(row, "item"), fields.name_field(row, "sheet")
    return fields.name_field(row, "id"), Shown(item, sheet, fields.truth_field(row, "exchanged"))

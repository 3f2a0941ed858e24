"""EmpatheticDialogues (Rashkin et al., ACL 2019) from its official CSV files.

The files are not CSV as libraries read it: rows are cut at raw commas, a comma inside a text is
written `_comma_`, and quotation marks mean nothing. A reader that honours quotes loses a tenth of
the rows without a word. Listener rows of the valid and test files have a ninth field, replies to
rank, parted by `|`; it is not read. The data (CC BY-NC 4.0) does not come with hen_jax.
"""

import dataclasses
import re
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.examples import Document
from hen_jax.data.records import Parsed, Problem
from hen_jax.data.rows import Row, text_lines
from hen_jax.text.conversation import Conversation, Message

ED_COLUMNS = (
    "conv_id", "utterance_idx", "context", "prompt", "speaker_idx", "utterance", "selfeval", "tags"
)  # fmt: skip


_RATINGS = re.compile(r"[\d|_]*")
"""`selfeval`, such as `5|5|5_2|2|5`: where it stands tells a ninth field from a stray comma."""


@dataclasses.dataclass(frozen=True)
class EmpatheticDialogue:
    """One conversation: the speaker, who felt something, is the user; the listener replies."""

    id: str
    emotion: str  # one of 32, as the file spells it
    situation: str
    conversation: Conversation

    def document(self) -> Document:
        """The conversation, grouped by its situation: several people talked about the same."""
        return Document(self.id, self.situation, self.conversation)


@dataclasses.dataclass(frozen=True)
class _Utterance:
    line: int
    index: int
    emotion: str
    situation: str
    text: str


def check_empathetic_dialogues(path: str | Path) -> Parsed[EmpatheticDialogue]:
    """The conversations of an official file, whatever the order of its rows.

    A conversation that lost a turn to a bad row is a problem too, at the line of its first turn.

    Raises:
      InputError: the file cannot be read, or its header is another.
    """
    path = Path(path)
    parsed: Parsed[EmpatheticDialogue] = Parsed([], [])
    utterances: dict[str, list[_Utterance]] = {}
    for line, text in text_lines(path):
        if line == 1:
            _check_header(path, text)
            continue
        try:
            row = _row(text)
            name, said = fields.text_field(row, "conv_id"), _parse(line, row)
            utterances.setdefault(name, []).append(said)
        except InputError as error:
            parsed.problems.append(Problem(path, line, str(error), text))
    for name, said in utterances.items():
        try:
            parsed.records.append(_dialogue(name, sorted(said, key=lambda one: one.index)))
        except InputError as error:
            parsed.problems.append(Problem(path, said[0].line, str(error), name))
    return parsed


def _check_header(path: Path, text: str) -> None:
    if tuple(text.strip().split(",")[: len(ED_COLUMNS)]) != ED_COLUMNS:
        raise InputError(
            f"{path}:1: the header is not {','.join(ED_COLUMNS)}; "
            "give a train, valid or test file of the official archive"
        )


def _row(text: str) -> Row:
    cells = text.rstrip("\n").split(",")
    listed = ED_COLUMNS.index("selfeval")
    # Tags may be left out, and candidates may follow them.
    whole = listed < len(cells) <= len(ED_COLUMNS) + 1 and _RATINGS.fullmatch(cells[listed])
    if not whole:
        raise InputError(
            f"utterance: {len(cells)} raw fields; allowed: {len(ED_COLUMNS)}, the seventh the "
            "ratings, and candidates"
        )
    return {
        column: cell.replace("_comma_", ",")
        for column, cell in zip(ED_COLUMNS, cells, strict=False)
    }


def _parse(line: int, row: Row) -> _Utterance:
    return _Utterance(
        line=line,
        index=int(fields.number_field(row, "utterance_idx", 1, 1000)),
        emotion=fields.text_field(row, "context"),
        situation=fields.text_field(row, "prompt"),
        text=fields.text_field(row, "utterance").strip(),
    )


def _dialogue(name: str, said: list[_Utterance]) -> EmpatheticDialogue:
    indices = [one.index for one in said]
    if indices != list(range(1, len(said) + 1)):
        missing = next(n for n, index in enumerate([*indices, 0], start=1) if n != index)
        raise InputError(f"utterance_idx: {missing} of {name:.40} is missing or bad")
    if len(said) < 2:
        raise InputError(f"utterance_idx: {name:.40} has no reply")
    messages = tuple(Message("user" if one.index % 2 else "assistant", one.text) for one in said)
    return EmpatheticDialogue(name, said[0].emotion, said[0].situation, Conversation(messages))

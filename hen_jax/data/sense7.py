"""SENSE-7 (Suh et al., 2025): conversations whose users rated the empathy of every reply.

Reads the published workbook (sheets Tasks and Messages), and the same rows as JSON lines. Ratings
are words (`very good` ... `very poor`, `unknown` = missing) or numbers from 1 to 5. Rows whose role
is `error` are no turns. `EmpathyOverall` is not read: the published ground truth does not use it.
The data (CDLA-Permissive-2.0) does not come with hen_jax; `samples/sense7` has its columns.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.examples import Document
from hen_jax.data.records import Parsed, Problem, parse_records
from hen_jax.data.rows import Row
from hen_jax.data.sheets import SheetRow, open_sheets
from hen_jax.empathy.clusters import CONTEXT_OF_TASK
from hen_jax.empathy.patterns import DIMENSIONS
from hen_jax.empathy.scales import DESIRED, PERCEIVED
from hen_jax.text.conversation import Conversation, Message

RATING_WORDS: Mapping[str, float | None] = {
    "very good": 5.0,
    "good": 4.0,
    "neutral": 3.0,
    "poor": 2.0,
    "very poor": 1.0,
    "unknown": None,
}

NO_CONTENT = "pending"
"""What stands for a message without content, as in the published code."""

EXPERIENCES = ("Successful", "Engaged", "PositiveInteraction", "UseAgain")
_EXPERIENCE, _POST = "PostTaskExperience_", "PostTaskEmpathy_"
TASK_COLUMNS = ("PID", "Model", "TaskId", "PreTaskChoice", "PreTaskDesiredEmpathy")
MESSAGE_COLUMNS = ("TaskId", "MessageId", "Role", "Content", *DIMENSIONS)


@dataclasses.dataclass(frozen=True)
class RatedTurn:
    """One message with the ratings its user gave it, of those given."""

    message: Message
    ratings: Mapping[str, float]  # by dimension, 1 to 5
    retry: bool

    @property
    def overall(self) -> float | None:
        """The mean over the rated dimensions of a reply; None where there is none."""
        rated = self.message.role == "assistant" and self.ratings
        return fmean(self.ratings.values()) if rated else None


@dataclasses.dataclass(frozen=True)
class RatedConversation:
    """One conversation with what its user wanted before and said after."""

    id: str  # TaskId
    participant: str  # PID, the split group
    model: str
    task: str
    context: str | None  # None for a topic that is in none of the four contexts
    importance: float | None  # 1 to 5
    desired: float | None  # 1 to 3
    experience: Mapping[str, float]  # after the conversation, 1 to 5
    empathy: Mapping[str, float]  # after the conversation, 1 to 5
    turns: tuple[RatedTurn, ...]

    def document(self) -> Document:
        """What was said, grouped by participant."""
        messages = tuple(turn.message for turn in self.turns)
        return Document(self.id, self.participant, Conversation(messages))


def check_sense7(
    path: str | Path, contexts: Mapping[str, str] = CONTEXT_OF_TASK
) -> Parsed[RatedConversation]:
    """The conversations of a workbook (`.xlsx`), or of JSON lines of `{task, messages}`.

    `contexts` says which context a topic (`PreTaskChoice`) belongs to; topics are compared in
    lower case with `_` for what is no letter or digit.

    Raises:
      InputError: the file cannot be read, or lacks a sheet or a column.
    """
    path = Path(path)

    def parse(row: Row) -> RatedConversation:
        fields.known_keys(row, required=("task", "messages"))
        task = fields.item_field(row, "task", lambda item: item)
        return _conversation(task, fields.items_field(row, "messages", _parse_turn), contexts)

    if path.suffix != ".xlsx":
        return parse_records(path, parse, lambda record: record.id)
    return _check_workbook(path, contexts)


def read_sense7(
    path: str | Path, contexts: Mapping[str, str] = CONTEXT_OF_TASK
) -> list[RatedConversation]:
    """The conversations of a file in which every row is good.

    Raises:
      InputError: names the first bad row and how many others there are.
    """
    return check_sense7(path, contexts).whole(path)


def ground_truth(conversation: RatedConversation) -> float | None:
    """Perceived empathy from 1 to 5, turn first; None when no assistant turn is rated.

    The mean over rated assistant turns of each one's mean over the dimensions it has. Turns rated
    `{Affective: 5}` and `{Affective: 1, Cognitive: 2}` give (5 + 1.5) / 2 = 3.25; the mean of the
    three ratings would be 2.67.
    """
    turns = [turn.overall for turn in conversation.turns if turn.overall is not None]
    return fmean(turns) if turns else None


def rating(value: Any) -> float | None:
    """A rating as a number: `Very Good ` is 5, `unknown` and nothing at all are missing.

    Raises:
      InputError: what is neither a rating word nor a number from 1 to 5.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        word = value.strip().lower()
        if not word:
            return None
        if word in RATING_WORDS:
            return RATING_WORDS[word]
    allowed = f"{', '.join(RATING_WORDS)}, or a number from 1 to 5"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{fields.shown(value)} is no rating; allowed: {allowed}") from None
    if isinstance(value, bool) or not PERCEIVED.low <= number <= PERCEIVED.high:
        raise InputError(f"{fields.shown(value)} is no rating; allowed: {allowed}")
    return number


def _check_workbook(path: Path, contexts: Mapping[str, str]) -> Parsed[RatedConversation]:
    sheets = _sheets(path)
    parsed: Parsed[RatedConversation] = Parsed([], [])
    turns: dict[str, list[tuple[float, RatedTurn | None]]] = {}
    spoilt: set[str] = set()  # conversations that lost a message
    for line in sheets["Messages"]:
        name = str(line.row.get("TaskId"))
        try:
            row = _whole(line)
            name = fields.name_field(row, "TaskId")
            place = fields.number_field(row, "MessageId", 0, 1e9)
            turns.setdefault(name, []).append((place, _parse_turn(row)))
        except InputError as error:
            spoilt.add(name)
            parsed.problems.append(Problem(path, line.line, f"Messages.{error}", line.text()))
    for line in sheets["Tasks"]:
        try:
            row = _whole(line)
            name = fields.name_field(row, "TaskId")
            if name in spoilt:
                raise InputError(f"TaskId: {name} has a bad message, so it is left out")
            if name not in turns:
                raise InputError(f"TaskId: {name} has no message, or is listed twice")
            said = sorted(turns.pop(name), key=lambda placed: placed[0])
            parsed.records.append(_conversation(row, [turn for _, turn in said], contexts))
        except InputError as error:
            turns.pop(str(line.row.get("TaskId")), None)
            parsed.problems.append(Problem(path, line.line, f"Tasks.{error}", line.text()))
    for name in turns.keys() - spoilt:
        parsed.problems.append(Problem(path, 1, f"Messages.TaskId: {name} is not in Tasks"))
    return parsed


def _sheets(path: Path) -> dict[str, list[SheetRow]]:
    sheets = open_sheets(path)
    required = {"Tasks": TASK_COLUMNS, "Messages": MESSAGE_COLUMNS}
    for title, columns in required.items():
        if title not in sheets:
            raise InputError(f"{path}: no sheet {title}; it has {', '.join(sheets)}")
        for column in columns:
            if column not in sheets[title].columns:
                raise InputError(f"{path}: the sheet {title} has no column {column}")
    return {title: list(sheets[title].rows) for title in required}


def _whole(line: SheetRow) -> Row:
    """The cells of a line, each of which must hold a value that can be read."""
    for column, reason in line.faults.items():
        raise InputError(f"{column}: {reason}")
    return line.row


def _parse_turn(row: Row) -> RatedTurn | None:
    """A message, or None for an error row."""
    role = fields.label_field(row, "Role", ("user", "assistant", "error"))
    if role == "error":
        return None
    content = NO_CONTENT if row.get("Content") is None else fields.text_field(row, "Content")
    ratings = {name: _rating_field(row, name) for name in DIMENSIONS}
    return RatedTurn(
        message=Message("user" if role == "user" else "assistant", content),
        ratings={name: value for name, value in ratings.items() if value is not None},
        retry=row.get("Retry") is not None and fields.truth_field(row, "Retry"),
    )


def _conversation(row: Row, turns: Any, contexts: Mapping[str, str]) -> RatedConversation:
    said = tuple(turn for turn in turns if turn is not None)
    if not said:
        raise InputError("messages: none but errors; such a conversation has nothing to rate")
    task = re.sub(r"[^a-z0-9]+", "_", fields.text_field(row, "PreTaskChoice").lower()).strip("_")
    desired = row.get("PreTaskDesiredEmpathy")
    if desired is not None:
        desired = fields.number_field(row, "PreTaskDesiredEmpathy", DESIRED.low, DESIRED.high)
    return RatedConversation(
        id=fields.name_field(row, "TaskId"),
        participant=fields.name_field(row, "PID"),
        model=fields.name_field(row, "Model"),
        task=task,
        context=contexts.get(task),
        importance=_rating_field(row, "PreTaskImportance"),
        desired=desired,
        experience=_present({name: _rating_field(row, _EXPERIENCE + name) for name in EXPERIENCES}),
        empathy=_present(
            {
                column.removeprefix(_POST): _rating_field(row, column)
                for column in row
                if column.startswith(_POST)
            }
        ),
        turns=said,
    )


def _present(ratings: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in ratings.items() if value is not None}


def _rating_field(row: Row, key: str) -> float | None:
    try:
        return rating(row.get(key))
    except InputError as error:
        raise InputError(f"{key}: {error}") from None

"""What annotators said of items: ratings on a scale, or choices between two replies.

Long files have a row for each rating (`item`, `annotator`, and `rating` or `choice`), wide ones a
row for each item and a column for each annotator. Every bad line is found, named and counted by
what is wrong with it; nothing is guessed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data import fields, sense7
from hen_jax.data.rows import Row, read_lines
from hen_jax.empathy.scales import PERCEIVED, Scale

Kind = Literal["ratings", "choices"]
FIRST, SECOND, TIE, BOTH_BAD = OUTCOMES = ("first", "second", "tie", "both_bad")
"""What a choice may say; the first four values of `Vote.value` of the kind `choices`."""

CHOICE_WORDS: Mapping[str, tuple[str, ...]] = {
    FIRST: ("a", "1", "first", "left", "chosen"),
    SECOND: ("b", "2", "second", "right", "rejected"),
    TIE: ("tie", "equal", "same", "both", "both good", "="),
    BOTH_BAD: ("both bad", "neither", "none", "bad"),
}
UNSAID = ("", "unknown", "skip", "skipped", "n/a", "na", "-", "?")
"""What stands where an annotator said nothing, beside an empty cell."""


class Vote(NamedTuple):
    """One annotator's word on one item."""

    item: str
    annotator: str
    value: float | str  # a rating, or one of `OUTCOMES`
    place: str  # "file:line"


class Fault(NamedTuple):
    """Why a line gave no vote."""

    kind: str  # what it is counted under
    what: str  # "file:line:field: what is wrong; allowed: ..."


class Cast(NamedTuple):
    """The votes of some files."""

    votes: list[Vote]
    faults: list[Fault]
    unsaid: int  # cells in which an annotator said nothing
    lines: int


class Shown(NamedTuple):
    """What an annotator was shown under a blind name: a line of the key of exported sheets."""

    item: str
    sheet: str
    exchanged: bool  # A was the second reply


SheetKey = Mapping[str, Shown]


class VoteReading(NamedTuple):
    """How files of votes are to be read."""

    kind: Kind
    scale: Scale = PERCEIVED
    columns: Mapping[str, str] = {}  # ours -> the file's, as `{"item": "task_id"}`
    annotators: Sequence[str] = ()  # columns of a wide file; none: all but the item
    key: SheetKey | None = None


def read_votes(files: Iterable[Path], reading: VoteReading) -> Cast:
    """All votes of the files, and every fault.

    A file without an annotator's column and with one of values is one annotator's, called by the
    file's name; with a key, by the sheet that each blind name was issued on.

    Raises:
      InputError: a file cannot be read at all.
    """
    cast, lines, unsaid = Cast([], [], 0, 0), 0, 0
    for path in files:
        numbered = list(read_lines(path))
        layout = _layout(path, (line.row for line in numbered if line.row is not None), reading)
        lines += len(numbered)
        for line, row, _, fault in numbered:
            place = f"{path}:{line}"
            if row is None:
                cast.faults.append(Fault("unreadable", f"{place}:{fault}"))
                continue
            for found in _votes(row, place, layout, reading):
                if found is None:
                    unsaid += 1
                elif isinstance(found, Fault):
                    cast.faults.append(found)
                else:
                    cast.votes.append(found)
    return _without_duplicates(cast._replace(unsaid=unsaid, lines=lines))


def require_good(cast: Cast) -> None:
    """Refuses files with faults, or without votes, in one line that counts them by kind.

    Raises:
      InputError: "5 of 120 lines ...: 3 off the scale (first ratings.csv:7:...), 2 ...".
    """
    if cast.faults:
        counts = Counter(fault.kind for fault in cast.faults)
        first = {fault.kind: fault.what for fault in reversed(cast.faults)}
        told = "; ".join(f"{count} {kind} ({first[kind]})" for kind, count in counts.items())
        raise InputError(
            f"{len(cast.faults)} faults in {cast.lines} lines, {len(cast.votes)} votes are good: "
            f"{told}. Nothing was written"
        )
    if not cast.votes:
        raise InputError(f"no vote in {cast.lines} lines ({cast.unsaid} empty); give some")


def unknown_items(cast: Cast, known: Mapping[str, Any]) -> Cast:
    """The same votes without those of items that are not known, each of which is a fault."""
    strange = [vote for vote in cast.votes if vote.item not in known]
    faults = [
        Fault("of unknown items", f"{vote.place}:item: {name} is not in the items")
        for vote in strange
        for name in [fields.shown(vote.item)]
    ]
    return cast._replace(
        votes=[vote for vote in cast.votes if vote.item in known], faults=cast.faults + faults
    )


class _Layout(NamedTuple):
    """Which columns of a file hold what."""

    name: str  # of its only annotator, where it has one
    annotator: bool  # a column says who
    values: tuple[str, ...]  # columns of ratings or choices


def _layout(path: Path, rows: Iterable[Row], reading: VoteReading) -> _Layout:
    """By all rows of the file, as empty cells are in none."""
    columns = dict.fromkeys(key for row in rows for key in _renamed(row, reading.columns))
    value = _VALUE[reading.kind]
    if "annotator" in columns or reading.key is not None or value in columns:
        return _Layout(path.stem, "annotator" in columns, (value,))
    others = tuple(reading.annotators) or tuple(key for key in columns if key != "item")
    absent = [name for name in others if name not in columns]
    if absent or not others:
        missing = ", ".join(absent) or f"annotator or {value}"
        raise InputError(
            f"{path}: no column {missing}; it has {', '.join(columns) or 'none'}; name yours with "
            f"--columns, such as {value}=score"
        )
    return _Layout(path.stem, False, others)


def _votes(
    row: Row, place: str, layout: _Layout, reading: VoteReading
) -> Iterator[Vote | Fault | None]:
    row = _renamed(row, reading.columns)
    try:
        item = fields.name_field(row, "item")
        own = fields.name_field(row, "annotator") if layout.annotator else None
    except InputError as error:
        yield Fault("without item or annotator", f"{place}:{error}")
        return
    shown = None if reading.key is None else reading.key.get(item)
    if reading.key is not None and shown is None:
        yield Fault("of unknown items", f"{place}:item: {fields.shown(item)} is not in the key")
        return
    for column in layout.values:
        try:
            value = _value(row.get(column), reading)
        except InputError as error:
            yield Fault(_BAD[reading.kind], f"{place}:{column}: {error}")
            continue
        if value is None:
            yield None
        elif shown is not None:
            turned = _turned(value) if shown.exchanged else value
            yield Vote(shown.item, own or shown.sheet, turned, place)
        else:
            one = layout.name if column == _VALUE[reading.kind] else column
            yield Vote(item, own or one, value, place)


_BAD = {"ratings": "off the scale", "choices": "no choice"}
_VALUE = {"ratings": "rating", "choices": "choice"}


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    theirs = {name: ours for ours, name in columns.items()}
    named = {theirs.get(key, key): value for key, value in row.items()}
    if "item" not in named and "id" in named:
        named["item"] = named.pop("id")
    return named


def _value(cell: Any, reading: VoteReading) -> float | str | None:
    said = "" if cell is None else re.sub(r"[\s_]+", " ", str(cell)).strip().lower()
    if said in UNSAID or (isinstance(cell, float) and cell != cell):
        return None
    if reading.kind == "ratings":
        return _rating(cell, reading.scale)
    said = said.removesuffix(".0")  # 1 as a spreadsheet may store it
    for outcome, words in CHOICE_WORDS.items():
        if said in words and not isinstance(cell, bool):
            return outcome
    allowed = ", ".join(words[0] for words in CHOICE_WORDS.values())
    raise InputError(f"{fields.shown(cell)} is no choice; allowed: {allowed}")


def _rating(cell: Any, scale: Scale) -> float | None:
    if scale == PERCEIVED:
        return sense7.rating(cell)  # words too
    return fields.number_field({"rating": cell}, "rating", scale.low, scale.high)


def _turned(value: float | str) -> float | str:
    return {FIRST: SECOND, SECOND: FIRST}.get(str(value), value)


def _without_duplicates(cast: Cast) -> Cast:
    """A second word of the same annotator on the same item is a fault, whether it agrees or not."""
    seen: dict[tuple[str, str], Vote] = {}
    faults = list(cast.faults)
    for vote in cast.votes:
        before = seen.setdefault((vote.item, vote.annotator), vote)
        if before is not vote:
            same = "again" if before.value == vote.value else f"and not {before.value!r}"
            who, what = fields.shown(vote.annotator), fields.shown(vote.item)
            said = f"{who} on item {what} says {vote.value!r} {same}, as in {before.place}"
            faults.append(Fault("given twice", f"{vote.place}: {said}"))
    return cast._replace(votes=list(seen.values()), faults=faults)

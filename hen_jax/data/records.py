"""Records from rows: every bad one is found, named and counted; none stops the reading."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from hen_jax.core.errors import InputError
from hen_jax.data import cells, fields
from hen_jax.data.rows import Row, read_lines

_Record = TypeVar("_Record")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A line that gave no record."""

    file: Path
    line: int
    what: str  # "field: what is wrong; allowed: ..."
    text: str = dataclasses.field(default="", repr=False)  # the line itself

    def __str__(self):
        return f"{self.file}:{self.line}:{self.what}"


@dataclasses.dataclass(frozen=True)
class Parsed(Generic[_Record]):
    """The records of a file and the problems of its other lines, both in file order."""

    records: list[_Record]
    problems: list[Problem]

    def whole(self, path: str | Path) -> list[_Record]:
        """The records, if there is one and no line is bad.

        Raises:
          InputError: names the first bad line and how many others there are.
        """
        if self.problems:
            others = len(self.problems) - 1
            more = f" (and {others} more bad line{'s' if others > 1 else ''})" if others else ""
            raise InputError(f"{self.problems[0]}{more}")
        if not self.records:
            raise InputError(f"{path}: no record in this file")
        return self.records


class LineOutcome(NamedTuple, Generic[_Record]):
    """A row beside what became of it: a record, or a problem."""

    row: Row | None
    record: _Record | None
    problem: Problem | None


def parse_each(
    path: str | Path,
    parse: Callable[[Row], _Record],
    identity: Callable[[_Record], str],
    *,
    number: bool = False,
) -> Iterator[LineOutcome[_Record]]:
    """Every row of `path` through `parse`, which raises `InputError` on a row it refuses.

    An `identity` that an earlier line has already is a problem of the later line. With `number`, a
    row without an `id` gets its file's name and line as one, and nothing of it is remembered: a
    file of any size is read in the same memory.

    Raises:
      InputError: the file cannot be read at all.
    """
    path = Path(path)
    line_of_id: dict[str, int] = {}
    for line, row, text, fault in read_lines(path):
        try:
            if row is None:
                raise InputError(fault)
            given = cells.plain(row) if "null" in text else row
            unique = number and "id" not in given
            record = parse({"id": f"{path.name}:{line}", **given} if unique else given)
            if not unique and line_of_id.setdefault(name := identity(record), line) != line:
                again = f"{fields.shown(name)} is also on line {line_of_id[name]}"
                raise InputError(f"id: {again}; give each record its own")
        except InputError as error:
            yield LineOutcome(row, None, Problem(path, line, str(error), text))
        else:
            yield LineOutcome(row, record, None)


def parse_records(
    path: str | Path,
    parse: Callable[[Row], _Record],
    identity: Callable[[_Record], str],
    *,
    number: bool = False,
) -> Parsed[_Record]:
    """The good records of a file beside the problem of each bad row, by `parse_each`."""
    return collect(parse_each(path, parse, identity, number=number))


def collect(rows: Iterable[LineOutcome[_Record]]) -> Parsed[_Record]:
    """What became of all rows."""
    parsed: Parsed[_Record] = Parsed([], [])
    for _, record, problem in rows:
        if problem is not None:
            parsed.problems.append(problem)
        elif record is not None:
            parsed.records.append(record)
    return parsed

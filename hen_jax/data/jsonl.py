"""Records from JSON lines: every bad line is found, named and counted; none stops the reading.

Python's own universal newlines split the file (LF, CRLF, CR, mixed), a byte order mark is
dropped, blank lines are skipped, and line numbers count every line.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from hen_jax.core.errors import InputError

Row = dict[str, Any]
Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A line that gave no record."""

    file: Path
    line: int
    what: str  # "field: what is wrong; allowed: ..."

    def __str__(self):
        return f"{self.file}:{self.line}:{self.what}"


@dataclasses.dataclass(frozen=True)
class Parsed(Generic[Record]):
    """The records of a file and the problems of its other lines, both in file order."""

    records: list[Record]
    problems: list[Problem]


def parse_records(
    path: str | Path, parse: Callable[[Row], Record], identity: Callable[[Record], str]
) -> Parsed[Record]:
    """Every line of `path` through `parse`, which raises `InputError` on a row it refuses.

    An `identity` that an earlier line has already is a problem of the later line.

    Raises:
      InputError: the file cannot be read at all.
    """
    path = Path(path)
    parsed: Parsed[Record] = Parsed([], [])
    line_of_id: dict[str, int] = {}
    for number, text in _lines(path):
        try:
            record = parse(_object(text))
        except InputError as error:
            parsed.problems.append(Problem(path, number, str(error)))
            continue
        first = line_of_id.setdefault(identity(record), number)
        if first == number:
            parsed.records.append(record)
        else:
            what = f"id: {identity(record)!r} is also on line {first}; give each record its own"
            parsed.problems.append(Problem(path, number, what))
    return parsed


def read_records(
    path: str | Path, parse: Callable[[Row], Record], identity: Callable[[Record], str]
) -> list[Record]:
    """The records of a file in which every line is good.

    Raises:
      InputError: names the first bad line and how many others there are, or says that the file
        cannot be read or holds no record.
    """
    parsed = parse_records(path, parse, identity)
    if parsed.problems:
        others = len(parsed.problems) - 1
        more = f" (and {others} more bad line{'s' if others > 1 else ''})" if others else ""
        raise InputError(f"{parsed.problems[0]}{more}")
    if not parsed.records:
        raise InputError(f"{path}: no record; give a file with one JSON object a line")
    return parsed.records


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        # surrogateescape: a byte that is not UTF-8 spoils its own line, not the file
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield number, text
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _object(text: str) -> Row:
    try:
        text.encode("utf-8")
        row = json.loads(text.rstrip(), parse_constant=_refuse_constant)
    except UnicodeEncodeError as error:
        raise InputError(f"column {error.start + 1}: not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"column {error.colno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise InputError("column 1: not valid JSON (nested too deep)") from None
    except ValueError as error:  # an integer of thousands of digits, NaN, Infinity
        raise InputError(f"column 1: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"column 1: a JSON {type(row).__name__}; each line must be an object")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")

"""Rows of a file of any usual kind, each with the line it is on; none stops the reading.

JSON lines, JSON arrays and objects, CSV and TSV (also gzipped), Excel, Parquet, Arrow, and folders
of such files. What a value says is one rule for all of them (`hen_jax.data.cells`).
Python's own universal newlines split text (LF, CRLF, CR, mixed), a byte order mark is dropped,
blank lines are skipped, and line numbers count every line. A Parquet file and a folder have no
lines: there the number is the row's, from 1.
"""

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from hen_jax.core.errors import InputError
from hen_jax.data import cells, folders
from hen_jax.data.tables import (
    Line,
    Row,
    arrow_rows,
    csv_rows,
    parquet_rows,
    workbook_rows,
)

LONGEST_ARRAY = 1 << 30
"""Characters of a file that is one JSON value, as it is held in memory; JSON lines are not."""

WRAPPERS = ("data", "rows", "records", "examples", "train")
"""Keys under which a file that is one object may hold the list of its rows."""


def read_lines(path: str | Path) -> Iterator[Line]:
    """The rows of `path`, by its suffix; a suffix that is not known is read as JSON.

    Raises:
      InputError: the file cannot be read at all.
    """
    path = Path(path)
    suffix = folders.suffix_of(path)
    if path.is_dir():
        return _folder_rows(path)
    if suffix == ".parquet":
        return parquet_rows(path)
    if suffix in (".arrow", ".feather"):
        return arrow_rows(path)
    if suffix in (".xlsx", ".xlsm"):
        return workbook_rows(path)
    return _readable(path, _csv_rows if suffix in (".csv", ".tsv") else _json_rows)


def json_object(text: str) -> Row:
    """One line of JSON as an object; a list of turns is the object `{"messages": [...]}`.

    Raises:
      InputError: `column N: what is wrong`.
    """
    try:
        text.encode("utf-8")
        row = _DECODER.decode(text.rstrip())
    except UnicodeEncodeError as error:
        raise InputError(f"column {error.start + 1}: not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"column {error.colno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise InputError("column 1: not valid JSON (nested too deep)") from None
    except InputError as error:  # a key that stands twice
        raise InputError(f"column 1: {error}") from None
    except ValueError as error:  # an integer of thousands of digits, NaN, Infinity
        raise InputError(f"column 1: not valid JSON ({error})") from None
    if are_turns(row):
        row = {"messages": row}
    if not isinstance(row, dict):
        raise InputError(f"column 1: a JSON {type(row).__name__}; each line must be an object")
    return cells.plain(row) if cells.ESCAPED in text else row


def are_turns(value: Any) -> bool:
    """Whether a value is one dialogue: a list of objects that say who speaks, and nothing more.

    SMILECHAT writes each of its dialogues as such a file.
    """
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and one.keys() in _TURNS for one in value)
    )


_TURNS = ({"role", "content"}, {"from", "value"})


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, gzipped or not, with their numbers.

    Raises:
      InputError: the file cannot be read.
    """
    try:
        with _open_text(path) as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


def _open_text(path: Path, newline: str | None = None) -> TextIO:
    # surrogateescape: a byte that is not UTF-8 spoils its own line, not the file
    options = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": newline}
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", **options)
    return path.open(**options)


def _readable(path: Path, read: Any) -> Iterator[Line]:
    try:
        yield from read(path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _csv_rows(path: Path) -> Iterator[Line]:
    with _open_text(path, newline="") as file:
        yield from csv_rows(path, file, tabs=folders.suffix_of(path) == ".tsv")


def _folder_rows(path: Path) -> Iterator[Line]:
    """The rows of all files, counted on from one to the next; a fault names its file."""
    number = itertools.count(1)
    for file in folders.data_files(path):
        for line, row, text, fault in read_lines(file):
            where = f"{fault} (line {line} of {file.relative_to(path)})" if fault else ""
            yield Line(next(number), row, text, where)


def _json_rows(path: Path) -> Iterator[Line]:
    """JSON lines; or the rows of one array, of `{"data": [...]}`, or of objects over many lines."""
    lines = text_lines(path)
    number, text = next(lines, (1, ""))
    first = _numbered(number, text) if text else None
    if first is None:
        return
    if text.lstrip()[:1] in ("[", "{") and (first.row is None or _wrapped(first.row)):
        whole = _read_whole(path)
        if whole is not None:
            yield from whole
            return
    yield first
    yield from (_numbered(number, text) for number, text in lines)


def _read_whole(path: Path) -> Iterator[Line] | None:
    """The rows of a text that is one JSON value or several over many lines; None for JSON lines."""
    with _open_text(path) as file:
        text = file.read(LONGEST_ARRAY)
        if file.read(1):
            limit = f"{LONGEST_ARRAY >> 30} GiB"
            raise InputError(f"{path}: one JSON value of more than {limit}; write JSON lines")
    at = len(text) - len(text.lstrip())
    try:
        value, end = _PLACER.raw_decode(text, at)
    except (ValueError, RecursionError):
        # An array with a bad object in it is read up to there; else each line stands for itself.
        return _objects(text, at + 1) if text[at] == "[" else None
    if text[at] == "[":
        if text[end:].strip():
            return None
        turns = are_turns(value)
        return iter([_numbered(1, text)]) if turns else _objects(text, at + 1)
    if "\n" not in text[at:end] and text[end:].strip():
        return None
    key = _wrapped(value)
    return _objects(text, at) if key is None else _listed(text, key, value[key])


def _wrapped(row: Any) -> str | None:
    """The key under which an object holds a list of rows, if it is no row itself."""
    if row.keys() & _OWN or sum(isinstance(value, list) for value in row.values()) != 1:
        return None
    for key in WRAPPERS:
        value = row.get(key)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return None if are_turns(value) else key
    return None


_OWN = {"id", "prompt", "instruction", "statement", "task"}
"""Keys of a row, which the object around a list of rows does not have."""


def _listed(text: str, key: str, rows: list[Any]) -> Iterator[Line]:
    """The rows under a key; with their own lines, where the first such list in the text is that."""
    start = re.search(rf'"{key}"\s*:\s*\[', text)
    found = list(_objects(text, start.end())) if start else []
    if len(found) == len(rows):
        return iter(found)
    return (_numbered(1, json.dumps(row, ensure_ascii=False)) for row in rows)


def _objects(text: str, at: int) -> Iterator[Line]:
    """The objects from a place on, up to the end of their list or of the text."""
    line, counted = 1, 0
    while True:
        while text[at : at + 1] in (" ", "\n", "\t", "\r", ","):
            at += 1
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] in ("]", ""):
            return
        try:
            _, end = _PLACER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            # Where the next object would begin cannot be known, so the rest is one problem.
            fault = f"column 1: not valid JSON ({error}); the rest of the array is not read"
            yield Line(line, None, text[at : at + 1000], fault)
            return
        yield _numbered(line, text[at:end])
        at = end


def _numbered(number: int, text: str) -> Line:
    try:
        return Line(number, json_object(text), text)
    except InputError as error:
        return Line(number, None, text, str(error))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=cells.members)
_PLACER = json.JSONDecoder()
"""Finds where a value ends; `_DECODER` reads what it says, so that each row is judged alone."""

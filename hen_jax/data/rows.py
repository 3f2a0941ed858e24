"""Rows of a file of any usual kind, each with the line it is on; none stops the reading.

JSON lines, a JSON array, CSV and TSV (also gzipped), Parquet, and folders that `datasets` opens.
Python's own universal newlines split text (LF, CRLF, CR, mixed), a byte order mark is dropped,
blank lines are skipped, and line numbers count every line. A Parquet file and a folder have no
lines: there the number is the row's, from 1.
"""

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from hen_jax.core.errors import InputError

Row = dict[str, Any]

LONGEST_FIELD = 1 << 27
"""Bytes of one CSV field; the reader of the standard library stops at 131,072 by itself."""


class Numbered(NamedTuple):
    """A row, or why the line holds none, with the text as it stands in the file."""

    line: int
    row: Row | None
    text: str
    fault: str = ""  # "column 3: not valid JSON (...)"


def numbered_rows(path: str | Path) -> Iterator[Numbered]:
    """The rows of `path`, by its suffix; a suffix that is not known is read as JSON lines.

    Raises:
      InputError: the file cannot be read at all.
    """
    path = Path(path)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if path.is_dir():
        return _folder_rows(path)
    if suffix == ".parquet":
        return _parquet_rows(path)
    readers = {".json": _array_rows, ".csv": _csv_rows, ".tsv": _csv_rows}
    return _readable(path, readers.get(suffix, _line_rows))


def json_object(text: str) -> Row:
    """One line of JSON as an object.

    Raises:
      InputError: `column N: what is wrong`.
    """
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
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


def _open_text(path: Path, newline: str | None = None) -> TextIO:
    # surrogateescape: a byte that is not UTF-8 spoils its own line, not the file
    options = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": newline}
    if path.suffix == ".gz":
        return gzip.open(path, "rt", **options)
    return path.open(**options)


def _readable(path: Path, read: Any) -> Iterator[Numbered]:
    try:
        yield from read(path)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _line_rows(path: Path) -> Iterator[Numbered]:
    for number, text in text_lines(path):
        yield _numbered(number, text)


def _numbered(number: int, text: str) -> Numbered:
    try:
        return Numbered(number, json_object(text), text)
    except InputError as error:
        return Numbered(number, None, text, str(error))


def _array_rows(path: Path) -> Iterator[Numbered]:
    """The objects of one JSON array; a `.json` that begins with an object is JSON lines."""
    with _open_text(path) as file:
        text = file.read()
    at = len(text) - len(text.lstrip())
    if text[at : at + 1] != "[":
        yield from _line_rows(path)
        return
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    at, line, counted = at + 1, 1, 0
    while True:
        while text[at : at + 1] in (" ", "\n", "\t", "\r", ","):
            at += 1
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            # Where the next object would begin cannot be known, so the rest is one problem.
            fault = f"column 1: not valid JSON ({error}); the rest of the array is not read"
            yield Numbered(line, None, text[at : at + 1000], fault)
            return
        yield _numbered(line, text[at:end])
        at = end


def _csv_rows(path: Path) -> Iterator[Numbered]:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    csv.field_size_limit(LONGEST_FIELD)
    with _open_text(path, newline="") as file:
        reader = csv.reader((line.replace("\0", "\ufffd") for line in file), delimiter=delimiter)
        names = next(reader, [])
        start = reader.line_num
        for cells in reader:
            start, line = reader.line_num, start + 1
            if cells:
                yield _cells(line, names, cells)


def _cells(line: int, names: list[str], cells: list[str]) -> Numbered:
    text = json.dumps(cells, ensure_ascii=False)
    if len(cells) != len(names):
        fault = f"column 1: {len(cells)} fields; the header has {len(names)}"
        return Numbered(line, None, text, fault)
    # An empty cell is a field left out, which is all that CSV has for null.
    row = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
    return Numbered(line, row, text)


def _parquet_rows(path: Path) -> Iterator[Numbered]:
    import pyarrow  # 0.2 s to load, and most files are text
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=1024))
            yield from _table_rows(row for batch in batches for row in batch)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None


def _folder_rows(path: Path) -> Iterator[Numbered]:
    import datasets  # two seconds to load
    from datasets.exceptions import DatasetsError

    try:
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(str(path))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        # RuntimeError: a folder with a loading script, which `datasets` refuses to run.
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: datasets cannot open this folder ({reason})") from None
    parts = found.values() if isinstance(found, dict) else [found]
    yield from _table_rows(row for part in parts for row in part)


def _table_rows(rows: Iterator[Any]) -> Iterator[Numbered]:
    """Arrow fills keys that a row does not have with None; there they are left out again."""
    for number, row in enumerate(rows, start=1):
        kept = _without_none(row)
        yield Numbered(number, kept, json.dumps(kept, ensure_ascii=False, default=str))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")

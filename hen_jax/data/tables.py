"""Rows of tables: CSV and TSV, Parquet, Arrow, and the one sheet of a workbook."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from hen_jax.core.errors import InputError
from hen_jax.data import cells
from hen_jax.data.sheets import open_sheets

Row = dict[str, Any]

LONGEST_FIELD = 1 << 27
"""Bytes of one CSV field; the reader of the standard library stops at 131,072 by itself."""


class Line(NamedTuple):
    """A row, or why the line holds none, with the text as it stands in the file."""

    line: int
    row: Row | None
    text: str
    fault: str = ""  # "column 3: not valid JSON (...)"


def csv_rows(path: Path, file: TextIO, *, tabs: bool) -> Iterator[Line]:
    """The lines of a CSV file under its header, whose separator is `,`, else `;`, else a tab.

    Raises:
      InputError: a column stands twice.
    """
    csv.field_size_limit(LONGEST_FIELD)
    lines = (line.replace("\0", "\ufffd") for line in file)
    head = next(lines, "")
    delimiter = "\t" if tabs else _delimiter(head)
    # A header may run over several lines where a name in quotes does, so it is read as CSV too.
    reader = csv.reader(_again(head, lines), delimiter=delimiter)
    columns = cells.header(next(reader, []), path)
    start = reader.line_num
    for values in reader:
        start, line = reader.line_num, start + 1
        if values:
            yield _csv_row(line, columns, values)


def parquet_rows(path: Path) -> Iterator[Line]:
    """The rows of a Parquet file, numbered from 1.

    Raises:
      InputError: the file cannot be read, or a column stands twice.
    """
    import pyarrow  # 0.2 s to load, and most files are text
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            cells.header(file.schema_arrow.names, path)
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=1024))
            yield from _table_rows(row for batch in batches for row in batch)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None


def arrow_rows(path: Path) -> Iterator[Line]:
    """The rows of an Arrow file or stream, as `datasets` writes it, numbered from 1.

    Raises:
      InputError: the file cannot be read, or a column stands twice.
    """
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.memory_map(str(path)) as source:
            try:
                batches: Any = pyarrow.ipc.open_stream(source)
            except pyarrow.ArrowInvalid:
                file = pyarrow.ipc.open_file(source)
                batches = (file.get_batch(at) for at in range(file.num_record_batches))
            yield from _table_rows(_batch_rows(path, batches))
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Arrow ({error})") from None


def workbook_rows(path: Path) -> Iterator[Line]:
    """The rows of a workbook's only sheet.

    Raises:
      InputError: the file cannot be read, or has several sheets.
    """
    sheets = open_sheets(path)
    if len(sheets) > 1:
        titles = ", ".join(sheets)
        raise InputError(f"{path}: several sheets ({titles}); save the one to be read by itself")
    for sheet in sheets.values():
        for one in sheet.rows:
            fault = next((f"{column}: {why}" for column, why in one.faults.items()), "")
            yield Line(one.line, None if fault else one.row, one.text(), fault)


def _delimiter(head: str) -> str:
    return next((one for one in (",", ";", "\t") if one in head), ",")


def _again(first: str, rest: Iterable[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _csv_row(line: int, columns: list[str], values: list[str]) -> Line:
    text = json.dumps(values, ensure_ascii=False)
    if len(values) != len(columns):
        fault = f"column 1: {len(values)} fields; the header has {len(columns)}"
        return Line(line, None, text, fault)
    return Line(line, cells.record(columns, list(map(cells.cell, values))), text)


def _batch_rows(path: Path, batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        cells.header(batch.schema.names, path)
        yield from batch.to_pylist()


def _table_rows(rows: Iterable[Any]) -> Iterator[Line]:
    for number, row in enumerate(rows, start=1):
        kept = cells.plain({key.strip(): value for key, value in row.items()})
        yield Line(number, kept, json.dumps(kept, ensure_ascii=False, default=str))

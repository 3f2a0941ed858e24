"""Excel workbooks as rows; a cell that holds no value it could be read as is named.

A workbook keeps a formula beside the value that some program last computed. Where none was saved,
as after a script wrote the formula, the cell would be read as empty: it is a fault instead.
"""

import json
import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from hen_jax.core.errors import InputError
from hen_jax.data import cells

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


class SheetRow(NamedTuple):
    """A line of a sheet with what its cells say, and why some of them say nothing."""

    line: int
    row: dict[str, Any]
    faults: dict[str, str]  # column -> reason

    def text(self) -> str:
        """The line for a report of problems."""
        return json.dumps({**self.row, **self.faults}, ensure_ascii=False, default=str)


class Sheet(NamedTuple):
    """A sheet's columns, and its lines below them that are not empty."""

    columns: list[str]
    rows: Iterator[SheetRow]


def open_sheets(path: Path) -> dict[str, Sheet]:
    """The sheets of a workbook by title, those that are empty left out.

    Raises:
      InputError: the file cannot be read, or a column stands twice.
    """
    import openpyxl  # half a second to load, and only workbooks need it

    try:
        # Not read_only: published workbooks may state wrong dimensions, which that mode believes.
        book = openpyxl.load_workbook(path, data_only=True)
        unsaved = _formulas_without_value(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as a workbook ({error})") from None
    except Exception as error:  # a damaged archive raises whatever zipfile or the XML reader does
        raise InputError(f"{path}: damaged workbook ({type(error).__name__}: {error})") from None
    return {
        sheet.title: _sheet(path, sheet, unsaved.get(sheet.title, set()))
        for sheet in book.worksheets
        if sheet.max_row > 1 or sheet["A1"].value is not None
    }


def _sheet(path: Path, sheet: Any, unsaved: set[str]) -> Sheet:
    lines = sheet.iter_rows()
    names = [cell.value for cell in next(lines, ())]
    columns = cells.header(names, f"{path}: the sheet {sheet.title}")
    return Sheet(columns, _rows(lines, columns, unsaved))


def _rows(lines: Iterator[Any], columns: list[str], unsaved: set[str]) -> Iterator[SheetRow]:
    for line in lines:
        faults = {
            name: reason
            for name, cell in zip(columns, line, strict=True)
            if name and (reason := _fault(cell, unsaved))
        }
        row = cells.record(columns, [_value(cell.value) for cell in line])
        if row or faults:
            yield SheetRow(line[0].row, {k: v for k, v in row.items() if k not in faults}, faults)


def _value(value: Any) -> Any:
    return cells.cell(value) if isinstance(value, str) else cells.plain(value)


def _fault(cell: Any, unsaved: set[str]) -> str | None:
    if cell.coordinate in unsaved:
        return (
            f"the formula in cell {cell.coordinate} has no saved value; open the workbook in a "
            "spreadsheet program and save it, or write the value in its place"
        )
    if cell.data_type == "e":
        return f"cell {cell.coordinate} holds the error {cell.value}; mend the formula"
    return None


def _formulas_without_value(path: Path) -> dict[str, set[str]]:
    """Sheet -> its cells with a formula and without a value; openpyxl reads these as empty."""
    found: dict[str, set[str]] = {}
    with zipfile.ZipFile(path) as archive:
        relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
        part_of = {one.get("Id"): one.get("Target", "") for one in relations}
        for sheet in ElementTree.fromstring(archive.read("xl/workbook.xml")).iter(f"{_MAIN}sheet"):
            part = posixpath.normpath(posixpath.join("/xl", part_of[sheet.get(_RELATION)]))
            content = archive.read(part.lstrip("/"))
            if b"<f" in content or b":f>" in content:
                found[sheet.get("name", "")] = {
                    cell.get("r", "")
                    for cell in ElementTree.fromstring(content).iter(f"{_MAIN}c")
                    if cell.find(f"{_MAIN}f") is not None and not _saved(cell)
                }
    return found


def _saved(cell: ElementTree.Element) -> bool:
    """Whether a value stands beside the formula: an empty text is one where it is said to be."""
    value = cell.find(f"{_MAIN}v")
    return value is not None and (bool(value.text) or cell.get("t") == "str")

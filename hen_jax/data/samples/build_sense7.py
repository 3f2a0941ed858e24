"""Writes `sense7/sense7.xlsx`, the workbook form of `sense7/conversations.jsonl`.

Run after a change to the conversations: `python -m hen_jax.data.samples.build_sense7`.
"""

from pathlib import Path

import openpyxl

from hen_jax.core.files import staged_file
from hen_jax.data import samples
from hen_jax.data.rows import Row, read_lines

SOURCE, WORKBOOK = "sense7/conversations.jsonl", "sense7.xlsx"


def write_workbook(source: Path, out: Path) -> None:
    """The rows of `source` as the sheets Tasks and Messages of a workbook."""
    rows = [numbered.row for numbered in read_lines(source) if numbered.row is not None]
    tasks = [row["task"] for row in rows]
    messages = [
        {"TaskId": row["task"]["TaskId"], **message} for row in rows for message in row["messages"]
    ]
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, items in {"Tasks": tasks, "Messages": messages}.items():
        _write_sheet(book.create_sheet(title), items)
    with staged_file(out) as staged:
        book.save(staged)


def _write_sheet(sheet, items: list[Row]) -> None:
    columns = list(items[0])
    sheet.append(columns)
    for item in items:
        sheet.append([item[column] for column in columns])


if __name__ == "__main__":
    source = samples.path(SOURCE)
    write_workbook(source, source.with_name(WORKBOOK))

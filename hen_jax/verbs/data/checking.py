"""`hen data validate` and `hen data scrub`: one pass over a file, with everything found listed."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from hen_jax.core.errors import InputError
from hen_jax.core.links import real_path
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.data import outside
from hen_jax.data.examples import Document
from hen_jax.data.privacy import scrub_value
from hen_jax.data.records import LineOutcome, Problem
from hen_jax.data.rows import Row, read_lines
from hen_jax.data.schema_pages import PAGES
from hen_jax.data.schemas import AS_NAMED, Columns, Schema, check_records, schema_named
from hen_jax.text.conversation import message_row

_SHOWN = 20
"""Problems printed; the quarantine file has all."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a file was found to hold."""

    records: int
    problems: list[Problem]
    good: Path | None
    quarantine: Path | None


def validate(
    file: Path, schema: str, out: Path | None = None, columns: Columns = AS_NAMED
) -> Validation:
    """Lists every bad record of `file` as `file:line:field: what`; prints a summary.

    Columns that the schema ignores are counted, so that a misspelt one is seen.

    With `out`, the folder gets `good.jsonl` and `quarantine.jsonl`. Good rows are written as they
    were read, or as `messages` where several rows make one record; a quarantined line keeps its
    text beside its problem.

    Raises:
      InputError: the file cannot be read at all, no such schema, or `out` holds other files of
        these names.
    """
    found = schema_named(schema)
    good = quarantine = None
    if out is not None:
        good, quarantine = out / "good.jsonl", out / "quarantine.jsonl"
        require_other(file, good, quarantine)
        require_no_link(out)
        require_ours(good, quarantine)  # before the work
    unread: Counter[str] = Counter()
    outcomes = _outcomes(file, found, schema, columns, unread)
    if good is not None and quarantine is not None:
        with output_files(good, quarantine) as staged, ExitStack() as stack:
            files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in staged]
            records, problems = _sift(outcomes, *files)
    else:
        records, problems = _sift(outcomes)
    for problem in problems[:_SHOWN]:
        print(problem)
    if len(problems) > _SHOWN:
        print(f"... and {len(problems) - _SHOWN} more")
    if unread:
        listed = ", ".join(f"{ascii(key)[1:-1]} ({unread[key]} rows)" for key in sorted(unread))
        print(f"{file}: not read: {listed}")
    print(f"{file}: {records} good records, {len(problems)} problems")
    return Validation(records, problems, good, quarantine)


def scrub(file: Path, out: Path) -> Counter[str]:
    """Writes `file` as JSON lines with e-mail, telephone, ID and account numbers masked.

    Returns how many of each kind were masked, and prints the counts.

    Raises:
      InputError: `out` is `file` or another file that we did not write, or a row cannot be read;
        nothing is written then.
    """
    require_other(file, out)
    counts: Counter[str] = Counter()

    def scrubbed() -> Iterator[Row]:
        for line, row, _, fault in read_lines(file):
            if row is None:
                raise InputError(f"{file}:{line}:{fault}; run `hen data validate` first")
            masked, found = scrub_value(row)
            counts.update(found)
            yield masked

    with output_files(out) as (staged,):
        _write_lines(staged, scrubbed())
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing"
    print(f"wrote {out}; masked {listed}. Names and addresses are not searched for.")
    return counts


def require_other(file: Path, *outputs: Path) -> None:
    """Raises `InputError` if an output is the file that is read."""
    for output in outputs:
        if output.exists() and real_path(output) == real_path(file):
            raise InputError(f"{output} is the file that is read; give another place")


def document_row(document: Document) -> Row:
    """A document as a row of the `messages` schema."""
    messages = [message_row(message) for message in document.conversation.messages]
    return {"id": document.id, "group": document.group, "messages": messages}


def _counted(
    rows: Iterator[LineOutcome[Any]], schema: str, columns: Columns, unread: Counter[str]
) -> Iterator[LineOutcome[Any]]:
    """What became of each row; `unread` counts the rows with a column that the schema ignores."""
    read = {columns.get(name, name) for name in PAGES[schema].names()}
    for one in rows:
        if one.problem is None and one.row is not None:
            unread.update(outside.unread(one.row, read))
        yield one


def _outcomes(
    file: Path, found: Schema, schema: str, columns: Columns, unread: Counter[str]
) -> Iterator[LineOutcome[Any]]:
    """What became of each row, or of each record where several rows make one."""
    if found.rows is not None:
        yield from _counted(found.rows(file, columns), schema, columns, unread)
        return
    parsed = check_records(file, schema, columns)
    for record in parsed.records:
        yield LineOutcome(document_row(found.document(record)), record, None)
    for problem in parsed.problems:
        yield LineOutcome(None, None, problem)


def _sift(
    outcomes: Iterable[LineOutcome[Any]], good: TextIO | None = None, bad: TextIO | None = None
) -> tuple[int, list[Problem]]:
    """How many rows are good, and the problems of the others; each goes to its file at once."""
    records, problems = 0, []
    for row, _, problem in outcomes:
        if problem is None:
            records += 1
            _write_line(good, row)
        else:
            problems.append(problem)
            _write_line(bad, _quarantined(problem))
    return records, problems


def _write_line(file: TextIO | None, row: Row | None) -> None:
    if file is not None:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _quarantined(problem: Problem) -> Row:
    # A half of a character in the line cannot be written as UTF-8: it is kept as its escape.
    text = problem.text.encode("utf-8", "backslashreplace").decode()
    what = problem.what.encode("utf-8", "backslashreplace").decode()
    return {"line": problem.line, "problem": what, "text": text}


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            _write_line(out, row)

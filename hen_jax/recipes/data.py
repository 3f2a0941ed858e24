"""`hen data validate` and `hen data scrub`: one pass over a file, with everything found listed."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.data import outside
from hen_jax.data.examples import Document
from hen_jax.data.privacy import scrub_value
from hen_jax.data.records import LineOutcome, Problem, collect
from hen_jax.data.rows import Row, read_lines
from hen_jax.data.schema_pages import PAGES
from hen_jax.data.schemas import AS_NAMED, Columns, Schema, check_records, schema_named
from hen_jax.text.conversation import message_row

SHOWN = 20
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
    if found.rows is None:
        parsed = check_records(file, schema, columns)
    else:
        parsed = collect(_counted(found.rows(file, columns), schema, columns, unread))
    if good is not None and quarantine is not None:
        with output_files(good, quarantine) as (for_good, for_bad):
            _write_lines(for_good, _good_rows(file, found, parsed.records, parsed.problems))
            _write_lines(for_bad, map(_quarantined, parsed.problems))
    for problem in parsed.problems[:SHOWN]:
        print(problem)
    if len(parsed.problems) > SHOWN:
        print(f"... and {len(parsed.problems) - SHOWN} more")
    if unread:
        listed = ", ".join(f"{ascii(key)[1:-1]} ({unread[key]} rows)" for key in sorted(unread))
        print(f"{file}: not read: {listed}")
    print(f"{file}: {len(parsed.records)} good records, {len(parsed.problems)} problems")
    return Validation(len(parsed.records), parsed.problems, good, quarantine)


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
        if output.exists() and output.resolve() == Path(file).resolve():
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


def _good_rows(
    file: Path, schema: Schema, records: Iterable[Any], problems: Iterable[Problem]
) -> Iterator[Row]:
    if schema.rows is None:
        yield from (document_row(schema.document(record)) for record in records)
        return
    # A line of a JSON array may hold several rows, so the line alone does not name one.
    bad = {(problem.line, problem.text) for problem in problems}
    for line, row, text, _ in read_lines(file):
        if row is not None and (line, text) not in bad:
            yield row


def _quarantined(problem: Problem) -> Row:
    # A half of a character in the line cannot be written as UTF-8: it is kept as its escape.
    text = problem.text.encode("utf-8", "backslashreplace").decode()
    what = problem.what.encode("utf-8", "backslashreplace").decode()
    return {"line": problem.line, "problem": what, "text": text}


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")

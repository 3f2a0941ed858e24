"""`hen data schemas`: the page of everything that can be read, made of what reads it."""

from collections.abc import Iterator

from hen_jax.data import outside
from hen_jax.data.conversations import SPEAKERS
from hen_jax.data.folders import SUFFIXES
from hen_jax.data.rows import WRAPPERS
from hen_jax.data.schema_pages import PAGES
from hen_jax.data.schemas import SCHEMAS


def markdown() -> str:
    """The page `docs/data.md`: kinds of files, what a value says, each schema, keys beside them."""
    return "\n".join([*_opening(), *_schemas(), *_keys()]) + "\n"


def _opening() -> Iterator[str]:
    suffixes = ", ".join(f"`{suffix}`" for suffix in SUFFIXES)
    yield from (
        "# Your own data",
        "",
        "*Written by `hen data schemas`; change the schemas, not this page.*",
        "",
        "A source is a file (or a folder of files) and the schema by which it is read:",
        "",
        "```python",
        'config.sources = [{"schema": "messages", "path": "chats.jsonl"}]',
        "# columns by another name: the schema's name first, then that of the file",
        "config.sources = [",
        "    {",
        '        "schema": "completion",',
        '        "path": "qa.csv",',
        '        "columns": {"prompt": "question", "completion": "answer"},',
        "    }",
        "]",
        "```",
        "",
        "`hen data validate FILE --schema NAME` lists every bad record as `file:line:field: what`, "
        "and which columns nobody reads. `hen show --data FILE --schema NAME --model MODEL` shows "
        "a record as the model sees it, with what trains.",
        "",
        "## Files",
        "",
        f"{suffixes}; text also gzipped. JSON may be lines, an array, one object over many lines, "
        f"or an object with the rows under {', '.join(f'`{key}`' for key in WRAPPERS)}. CSV may "
        "be separated by commas, semicolons or tabs. A workbook has one sheet (SENSE-7 two). A "
        "folder is read file by file; one that `datasets` saved, or whose README lists data "
        "files, as these say, but never a file outside of the folder.",
        "",
        "In every kind of file:",
        "",
        "- null, an empty cell and NaN are a field left out;",
        "- a column, or a key of an object, stands once; blanks around its name do not count;",
        "- truth values and numbers may be written as text, lists and objects as JSON text;",
        "- `_x000D_`, a spreadsheet's escape of a line break, is a line break;",
        "- a formula without a saved value, and a cell with an error such as `#N/A`, is a problem;",
        "- a text is not blank, is valid Unicode and holds no control character.",
        "",
    )


def _schemas() -> Iterator[str]:
    yield "## Schemas"
    for name in SCHEMAS:
        page = PAGES[name]
        yield from ("", f"### {name}", "", page.about, "", "| column | | |", "|---|---|---|")
        for column, what in page.columns.items():
            needed, said = "" if column.endswith("?") else "needed", what.replace("|", "\\|")
            yield f"| `{column.removesuffix('?')}` | {needed} | {said} |"
        kind = {".jsonl": "json", ".json": "json", ".csv": "csv"}[page.suffix]
        yield from ("", f"As `{page.suffix}`:", "", f"```{kind}", page.example.rstrip("\n"), "```")


def _keys() -> Iterator[str]:
    thoughts = ", ".join(f"`{key}`" for key in outside.THOUGHTS)
    on = ", ".join(f"`{key}`" for key, means in outside.TRAINS.items() if means)
    off = ", ".join(f"`{key}`" for key, means in outside.TRAINS.items() if not means)
    yield from (
        "",
        "## What a turn may say beside its words",
        "",
        "In lists of messages. Speakers: "
        + ", ".join(f"`{name}`" for name in SPEAKERS)
        + ", in any case.",
        "",
        f"- {thoughts}: what the assistant thought before the reply; written where the model's "
        "template writes thoughts, else the record is refused.",
        f"- {on} (true: it trains) and {off} (true: it does not): whether a reply trains. Without "
        "these every reply does. Other turns never train.",
        "- content in parts: parts of text are joined, others are refused.",
        "",
        "## Keys that are refused",
        "",
        "They change what is said or what trains, and cannot be rendered. Where they are null or "
        "empty they are allowed. Any other key is about the record and is left alone; `hen data "
        "validate` counts these.",
        "",
        "| key | of | why |",
        "|---|---|---|",
    )
    tables = {"a row": outside.IN_ROWS, "a pair": outside.IN_PAIRS, "a turn": outside.IN_TURNS}
    rows: dict[tuple[str, str], list[str]] = {}
    for place, table in tables.items():
        for key, refused in table.items():
            if place != "a pair" or key not in outside.IN_ROWS:
                rows.setdefault((place, refused.why), []).append(f"`{key}`")
    for (place, why), keys in rows.items():
        yield f"| {', '.join(keys)} | {place} | {why} |"

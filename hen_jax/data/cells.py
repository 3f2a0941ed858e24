"""What a value in a file says: one rule for JSON, CSV, Excel, Parquet and Arrow.

* null, an empty cell and NaN are a field left out, inside of objects too. A list keeps its places.
* A column or a key may stand once. Blanks around a column's name are not part of it, and a column
  without a name is not read, as no schema could ask for it.
* A carriage return that a spreadsheet escaped (`_x000D_`) is a line break wherever it stands, and
  so are CR LF and CR in a cell. In a JSON string they stay, as they were written out there.
* Dates and bytes, which JSON has no form for, are text: ISO 8601, and base64.
* A truth value or a number may be written as text (`hen_jax.data.fields` reads both).
"""

import base64
import datetime
import decimal
import re
from collections.abc import Sequence
from typing import Any

from hen_jax.core.errors import InputError

ESCAPED = "_x00"
"""What every escaped character begins with: a text without it need not be looked through."""

_ESCAPE = re.compile(r"_x005F_(?=x[0-9A-Fa-f]{4}_)|_x000D_\n?|_x000A_|_x0009_")
_MEANT = {"_x005F_": "_", "_x0009_": "\t"}


def unescaped(text: str) -> str:
    r"""`a_x000D_\nb` is `a\nb`; `_x005F_x000D_` says that no escape is meant: it is `_x000D_`."""
    if ESCAPED not in text:
        return text
    return _ESCAPE.sub(lambda found: _MEANT.get(found.group(), "\n"), text)


def cell(text: str) -> str:
    """A text as a table's cell holds it, with line feeds for all its line breaks."""
    return unescaped(text).replace("\r\n", "\n").replace("\r", "\n")


def present(value: Any) -> bool:
    """Whether a value is there at all: not null and not NaN."""
    return value is not None and value == value


def plain(value: Any) -> Any:
    """A value from a table as JSON has it, without what is absent."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if present(item)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return unescaped(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value


def members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's members; null stays, for who writes the row out again.

    Raises:
      InputError: a key that stands twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise InputError(f"{twice}: given twice in one object; keep one")
    return found


def header(names: Sequence[Any], place: object) -> list[str]:
    """The columns of a table by name, with an empty name for those that are not read.

    Raises:
      InputError: a column that stands twice; `place` names the file.
    """
    columns = ["" if name is None else str(name).strip() for name in names]
    for at, name in enumerate(columns):
        if name and name in columns[:at]:
            raise InputError(f"{place}: the column {name!r} is given twice; keep one, or rename it")
    return columns


def record(columns: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """The cells of one line of a table under their columns, without the empty ones."""
    return {
        name: value
        for name, value in zip(columns, values, strict=True)
        if name and present(value) and value != ""
    }

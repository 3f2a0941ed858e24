"""Reading the fields of a JSON row, each with the error that names it and what is allowed."""

import json
import re
from collections.abc import Callable, Collection
from typing import TypeVar

from hen_jax.core.errors import InputError
from hen_jax.core.shapes import shown
from hen_jax.data.rows import Row

_Item = TypeVar("_Item")

_REFUSED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of characters that no tokenizer can encode."""

LONGEST_TEXT = 1_000_000
"""Characters of one text: what is longer is no turn of a conversation but a broken file."""


def known_keys(row: Row, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Refuses a row with a missing or an unknown key, so that a misspelt one is not lost."""
    for key in required:
        if key not in row:
            raise InputError(f"{key}: missing; every record needs {', '.join(required)}")
    for key in row:
        if key not in required and key not in optional:
            allowed = ", ".join([*required, *optional])
            raise InputError(f"{key}: unknown key; allowed: {allowed}")


def text_field(row: Row, key: str) -> str:
    """A text that is not blank and holds no control character."""
    value = row.get(key)
    if value is None:
        raise InputError(f"{key}: missing; give a text that is not blank")
    if not isinstance(value, str):
        raise InputError(f"{key}: {shown(value)} is not text; allowed: a JSON string")
    if not value.strip():
        raise InputError(f"{key}: empty; allowed: a text that is not blank")
    if len(value) > LONGEST_TEXT:
        raise InputError(f"{key}: {len(value):,} characters; allowed: up to {LONGEST_TEXT:,}")
    if refused := _REFUSED.search(value):
        raise InputError(
            f"{key}: holds {refused.group()!a} at character {refused.start() + 1}; "
            "allowed: text without control characters or lone surrogates"
        )
    return value


def label_field(row: Row, key: str, allowed: Collection[str]) -> str:
    """One of `allowed`."""
    value = row.get(key)
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{key}: {shown(value)} is no label; allowed: {', '.join(allowed)}")
    return value


def conditional_label(row: Row, key: str, allowed: Collection[str], *, given: bool) -> str | None:
    """One of `allowed` where the record's task gives this condition, else null or left out."""
    if given:
        return label_field(row, key, allowed)
    if row.get(key) is not None:
        raise InputError(f"{key}: {shown(row[key])} in a task that does not give it; allowed: null")
    return None


_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def truth_field(row: Row, key: str) -> bool:
    """True or false, 1 or 0, or one of these as text, as CSV and spreadsheets have them."""
    value = row.get(key)
    if isinstance(value, bool | int | float | str):
        found = _TRUTH.get(str(int(value) if value in (0, 1) else value).strip().lower())
        if found is not None:
            return found
    raise InputError(f"{key}: {shown(value)}; allowed: true, false, 1 or 0")


def name_field(row: Row, key: str) -> str:
    """The name of a record, a group or a person: a text that is not blank, or a whole number."""
    value = row.get(key)
    if isinstance(value, float) and value.is_integer():  # as a spreadsheet may store 12
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_field(row, key)


def number_field(row: Row, key: str, low: float, high: float) -> float:
    """A number from `low` to `high`, or one written as text, as all of CSV is."""
    value = from_text(row.get(key))
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(f"{key}: {shown(value)}; allowed: a number from {low:g} to {high:g}")
    return float(value)


def items_field(row: Row, key: str, parse: Callable[[Row], _Item]) -> tuple[_Item, ...]:
    """A list of objects, each through `parse`; its errors name the place, as `turns[0].user`.

    The list may be given as JSON text, as a CSV cell must.
    """
    value = from_text(row.get(key))
    if not isinstance(value, list):
        raise InputError(f"{key}: {shown(value)}; allowed: a list of JSON objects")
    return tuple(_parse_at(f"{key}[{index}]", item, parse) for index, item in enumerate(value))


def item_field(row: Row, key: str, parse: Callable[[Row], _Item]) -> _Item:
    """An object, or its JSON text, through `parse`; errors name the place, as `persona.need`."""
    return _parse_at(key, from_text(row.get(key)), parse)


def from_text(value: object) -> object:
    """What a text says as JSON, where it is any; else the value itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _parse_at(place: str, value: object, parse: Callable[[Row], _Item]) -> _Item:
    if not isinstance(value, dict):
        raise InputError(f"{place}: {shown(value)}; allowed: a JSON object")
    try:
        return parse(value)
    except InputError as error:
        raise InputError(f"{place}.{error}") from None

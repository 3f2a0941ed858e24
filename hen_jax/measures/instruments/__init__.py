"""Questionnaires as keys: how many items, their range, which are reversed, what belongs together.

A file here never holds an item's wording (`items: null`): most of it is somebody's, and the user
brings it, as a text file of one item a line or JSON of number -> text. A questionnaire of your own
is a file of the same form, with its items in it if you like.
"""

import dataclasses
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_text
from hen_jax.core.yaml_text import read_yaml

_Mode = Literal["sum", "double_sum", "mean"]

_NEEDED = ("id", "form", "n_items", "range", "mode", "reverse", "subscales", "licence", "source")
_ALLOWED = (*_NEEDED, "total", "note", "items")


@dataclasses.dataclass(frozen=True)
class Instrument:
    """A questionnaire's key; `items` are empty until the user brings them."""

    id: str
    form: str  # translations and short forms number their items otherwise
    n_items: int
    low: int
    high: int
    mode: _Mode
    reverse: frozenset[int]  # item numbers, from 1
    subscales: Mapping[str, tuple[int, ...]]
    licence: str
    source: str
    total: bool = False  # whether a total over all items is meant to be used
    note: str = ""
    items: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def scored(self, item: int, answer: int) -> int:
        """What an answer counts: `low + high - answer` on a reversed item."""
        return self.low + self.high - answer if item in self.reverse else answer


def names() -> list[str]:
    """The instruments whose keys are shipped."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().glob("*.yaml"))


def load_instrument(source: str) -> Instrument:
    """A key by its shipped name, or a file's own.

    Raises:
      InputError: no such instrument, or a file that is none (`file: field: what is wrong`).
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml", ".json"):
        if source not in names():
            raise InputError(f"instrument {source!r}; allowed: {', '.join(names())}, or a .yaml")
        path = _folder() / f"{source}.yaml"
    given = read_yaml(path)
    try:
        return parse_instrument(given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_instrument(given: Any) -> Instrument:
    """A key from what its file holds.

    Raises:
      InputError: `field: what is wrong`.
    """
    if not isinstance(given, dict):
        raise InputError(f"no mapping of fields; give {', '.join(_NEEDED)}")
    for key in _NEEDED:
        if key not in given:
            raise InputError(f"{key}: missing; an instrument needs {', '.join(_NEEDED)}")
    for key in given:
        if key not in _ALLOWED:
            raise InputError(f"{key}: unknown; allowed: {', '.join(_ALLOWED)}")
    match given["range"], given["n_items"]:
        case [int(low), int(high)], int(count) if low < high and count > 0:
            pass
        case _:
            raise InputError("range, n_items: allowed: two whole numbers, lower first, and a count")
    if given["mode"] not in ("sum", "double_sum", "mean"):
        raise InputError(f"mode: {given['mode']!r}; allowed: sum, double_sum, mean")
    subscales = given["subscales"]
    if not isinstance(subscales, dict) or not subscales:
        raise InputError("subscales: allowed: name -> list of item numbers")
    return Instrument(
        id=str(given["id"]),
        form=str(given["form"]),
        n_items=count,
        low=low,
        high=high,
        mode=given["mode"],
        reverse=frozenset(_numbers(given["reverse"], count, "reverse")),
        subscales={str(n): _numbers(x, count, f"subscales.{n}") for n, x in subscales.items()},
        licence=str(given["licence"]),
        source=str(given["source"]),
        total=given.get("total") is True,
        note=str(given.get("note") or ""),
        items=_items(given.get("items") or {}, count),
    )


def with_items(instrument: Instrument, path: Path | None) -> Instrument:
    """The instrument with the wording from the user's file.

    Raises:
      InputError: no file (says what to bring), no UTF-8, another number of items, or one without
        a text.
    """
    if path is None or not path.is_file():
        raise InputError(
            f"{path or '--items FILE'}: the wording of {instrument.id} ({instrument.source}; "
            f"{instrument.licence}) does not come with hen_jax: give a file with its "
            f"{instrument.n_items} items, one a line in their order, or JSON of number -> text"
        )
    text = read_text(path)
    if path.suffix == ".json":
        try:
            given = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}: not valid JSON ({error})") from None
    else:
        given = [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return dataclasses.replace(instrument, items=_items(given, instrument.n_items))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _items(given: Any, count: int) -> dict[int, str]:
    if isinstance(given, list):
        given = dict(enumerate(given, start=1))
    if not isinstance(given, dict) or not all(str(key).isdecimal() for key in given):
        raise InputError("items: allowed: a list of texts, or number -> text")
    for key, text in given.items():
        if not isinstance(text, str):
            raise InputError(f"items: {key}: {str(text)[:40]}; allowed: a text (in quotes)")
    found = {int(key): text.strip() for key, text in given.items()}
    if found and (set(found) != set(range(1, count + 1)) or not all(found.values())):
        raise InputError(f"items: {len(found)} texts; allowed: one for each of 1 to {count}")
    return found


def _numbers(given: Any, count: int, field: str) -> tuple[int, ...]:
    numbers = given if isinstance(given, list) else [given]
    if not all(isinstance(one, int) and 1 <= one <= count for one in numbers):
        raise InputError(f"{field}: {given!r}; allowed: item numbers from 1 to {count}")
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{field}: an item stands twice")
    return tuple(numbers)


def _folder() -> Path:
    return Path(str(resources.files(__name__)))

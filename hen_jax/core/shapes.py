"""Whether JSON that anybody may have changed since has the shape that its reader counts on.

A shape is written as the value itself would be:

    {"id": str, "reply": (None, str), "groups?": [is_count], ...: is_figure}

An object has every field that is named, but for those with a question mark, and may have others;
`...` is the shape of the others. `[shape]` is a list of such values, `(one, other)` either of them,
None null, a class any value of it, and a function says whether a value fits. Here true and false
are no numbers, and `float` is any finite number.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json

_LARGEST = 1e300
"""So that differences of figures are finite too."""

_REMEDY = "mend the file, or take a whole copy"


def is_figure(value: Any) -> bool:
    """Whether a value is a number that can be drawn and rounded; NaN and infinities are numbers."""
    if isinstance(value, float):
        return not _LARGEST < abs(value) < float("inf")
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def is_count(value: Any) -> bool:
    """Whether a value is a whole number that counts something: 0 to 2^53."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 53


_WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    None: "null",
    is_figure: "a number",
    is_count: "a whole number from 0",
}


class Misfit(NamedTuple):
    """The first place of a value that has another shape."""

    place: str  # "figures[3].low"; "" where it is all of the value
    said: str  # "is 'x'; it must be a number"


def misfit(value: Any, shape: Any, at: str = "") -> Misfit | None:
    """Where a value, which itself is called `at`, has another shape; None: it fits."""
    if isinstance(shape, tuple):
        found = [misfit(value, one, at) for one in shape]
        within = [one for one in found if one is not None and one.place != at]
        return None if None in found else within[0] if within else _other(value, shape, at)
    if isinstance(shape, list):
        places = (f"{at}[{index}]" for index in range(sys.maxsize))
        inside = zip(places, value, strict=False) if isinstance(value, list) else None
        return _other(value, list, at) if inside is None else _first(inside, shape[0])
    if isinstance(shape, Mapping):
        return _of_object(value, shape, at)
    return None if _is(value, shape) else _other(value, shape, at)


def checked_shape(
    value: Any, shape: Any, path: Path | str, remedy: str = _REMEDY, at: str = ""
) -> Any:
    """The value, if it has the shape.

    Raises:
      InputError: names the file, the place in it and what it must be, then the remedy.
    """
    found = misfit(value, shape, at)
    if found is None:
        return value
    raise InputError(f"{path}: {found.place or 'it'} {found.said}: {remedy}")


def read_json_object(path: Path, shape: Mapping[Any, Any] = {}) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      InputError: no such file, no JSON, or another shape.
    """
    return checked_shape(read_json(path), shape, path)


def shown(value: object, longest: int = 40) -> str:
    """A value as a message quotes it: on one line, and so many characters of it at most."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, a number of too many digits
        text = f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _of_object(value: Any, shape: Mapping[Any, Any], at: str) -> Misfit | None:
    if not isinstance(value, Mapping):
        return _other(value, dict, at)
    named = {name.removesuffix("?"): one for name, one in shape.items() if name is not ...}
    for name in named:
        if name not in value and name in shape:
            return Misfit(_joined(at, name), "is missing")
    own = ((_joined(at, name), value[name], one) for name, one in named.items() if name in value)
    for place, inner, one in own:
        if (found := misfit(inner, one, place)) is not None:
            return found
    others = ((_joined(at, name), one) for name, one in value.items() if name not in named)
    return _first(others, shape[...]) if ... in shape else None


def _first(items: Iterable[tuple[str, Any]], shape: Any) -> Misfit | None:
    return next((found for place, one in items if (found := misfit(one, shape, place))), None)


def _is(value: Any, shape: Any) -> bool:
    if shape is None:
        return value is None
    if not isinstance(shape, type):
        return shape(value)
    if isinstance(value, bool):
        return shape is bool
    if shape is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, shape)


def _other(value: Any, shape: Any, at: str) -> Misfit:
    return Misfit(at, f"is {shown(value)}; it must be {_wanted(shape)}")


def _wanted(shape: Any) -> str:
    if isinstance(shape, tuple):
        return " or ".join(dict.fromkeys(map(_wanted, shape)))
    kind = list if isinstance(shape, list) else dict if isinstance(shape, Mapping) else shape
    return _WORDS.get(kind) or kind.__name__.removeprefix("is_").replace("_", " ")


def _joined(at: str, name: str) -> str:
    name = name if name.isprintable() and len(name) <= 60 else shown(name)
    return f"{at}.{name}" if at else name

"""Whether JSON that anybody may have changed since has the shape that its reader counts on.

A shape is written as the value itself would be:

    {"id": str, "reply": (None, str), "groups?": [is_count], str: is_figure}

An object has every field that is named, but for those with a question mark, and may have others;
`str` is the shape of the others. `[shape]` is a list of such values, `(one, other)` either of
them, None null, a class any value of it, and a function says whether a value fits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError

_LARGEST = 1e300
"""So that differences of figures are finite too."""


def is_figure(value: Any) -> bool:
    """Whether a value is a number that can be drawn and rounded; NaN and infinities are numbers."""
    if isinstance(value, float):
        return not _LARGEST < abs(value) < float("inf")
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def is_count(value: Any) -> bool:
    """Whether a value is a whole number that counts something: 0 to 2^53."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 53


def misfit(value: Any, shape: Any) -> str | None:
    """Where a value has another shape: "figures[3].low", "" where all of it; None: it fits."""
    if isinstance(shape, tuple):
        found = [misfit(value, one) for one in shape]
        return None if None in found else max(map(str, found), key=len)
    if isinstance(shape, list):
        return _first(enumerate(value), shape[0]) if isinstance(value, list) else ""
    if isinstance(shape, dict):
        return _misfit_object(value, shape) if isinstance(value, dict) else ""
    if shape is None:
        return None if value is None else ""
    return None if (isinstance(value, shape) if isinstance(shape, type) else shape(value)) else ""


def _misfit_object(value: dict[str, Any], shape: dict[Any, Any]) -> str | None:
    named = {name.removesuffix("?"): one for name, one in shape.items() if name is not str}
    for name, one in named.items():
        if name not in value and f"{name}?" not in shape:
            return f".{name}"
        if name in value and (place := misfit(value[name], one)) is not None:
            return f".{name}{place}"
    others = ((name, one) for name, one in value.items() if name not in named)
    return _first(others, shape[str]) if str in shape else None


def _first(items: Iterator[tuple[Any, Any]], shape: Any) -> str | None:
    for key, one in items:
        if (place := misfit(one, shape)) is not None:
            return f"[{key!r}]{place}"
    return None


def checked_shape(value: Any, shape: Any, path: Path | str, remedy: str) -> Any:
    """The value, if it has the shape.

    Raises:
      InputError: names the file and the place in it: "FILE: figures[3].low is damaged; REMEDY".
    """
    place = misfit(value, shape)
    if place is None:
        return value
    raise InputError(f"{path}: {place.removeprefix('.') or 'all of it'} is damaged; {remedy}")

"""Whether what a file holds has the shape that its reader needs; else one line names the field.

A shape is a type, `[shape]` for a list, or a dict of them by name. A name that ends in `?` may be
absent or null; `...` stands for every name. `(str, list)` is either; `float` is any finite number.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json

JsonShape = Any

_WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def read_json_object(path: Path, shape: Mapping[Any, JsonShape] = {}) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      InputError: no such file, no JSON, or another shape; names the file and the field.
    """
    fields = read_json(path)
    require_json_shape(path, fields, shape)
    return fields


def require_json_shape(path: Path, value: Any, shape: JsonShape, at: str = "") -> None:
    """Raises `InputError` unless `value`, of the file at `path`, has the shape."""
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            raise _refused(path, at, value, dict)
        for key, inner in shape.items():
            if key is ...:
                for name, one in value.items():
                    require_json_shape(path, one, inner, _joined(at, name))
                continue
            name = key.removesuffix("?")
            if value.get(name) is None and name != key:
                continue
            if name not in value:
                raise InputError(f"{path}: {_joined(at, name)} is missing; {_REMEDY}")
            require_json_shape(path, value[name], inner, _joined(at, name))
    elif isinstance(shape, list):
        if not isinstance(value, list | tuple):
            raise _refused(path, at, value, list)
        for index, one in enumerate(value):
            require_json_shape(path, one, shape[0], f"{at}[{index}]")
    elif not any(_is(value, one) for one in (shape if isinstance(shape, tuple) else (shape,))):
        raise _refused(path, at, value, shape)


def shown(value: object, longest: int = 40) -> str:
    """A value as a message quotes it: on one line, and so many characters of it at most."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, a number of too many digits
        text = f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


_REMEDY = "mend the file, or take a whole copy"


def _joined(at: str, name: str) -> str:
    name = name if name.isprintable() and len(name) <= 60 else shown(name)
    return f"{at}.{name}" if at else name


def _refused(path: Path, at: str, value: Any, shape: JsonShape) -> InputError:
    kinds = shape if isinstance(shape, tuple) else (shape,)
    said = " or ".join(_WORDS[one] for one in kinds)
    what = f"{at} is {shown(value)}" if at else f"it holds {shown(value)}"
    return InputError(f"{path}: {what}; it must be {said}: {_REMEDY}")

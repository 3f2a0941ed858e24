"""ConfigDict node -> frozen dataclass: unknown, missing and ill-typed fields are errors."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from hen_jax.core.errors import InputError
from hen_jax.core.fields import REQUIRED, bare, default_of, may_be_none, words

_Record = TypeVar("_Record")

LARGEST_INT, LARGEST, SMALLEST = 2**31 - 1, 3.4e38, 2.0**-126
"""What 32-bit integers and normal float32 numbers, which all computations use, can hold."""


def settings(record: type[_Record], node: Any, path: str = "config") -> _Record:
    """The dataclass `record` filled from a config node, nested dataclasses included.

    A field may be left out only where the dataclass gives a default.

    Raises:
      InputError: names the field as it stands in the config, such as `config.optimizer.clip`.
    """
    if not isinstance(node, ConfigDict | Mapping):
        raise InputError(f"{path} is {node!r}; it must be a group of fields")
    fields = {field.name: field for field in dataclasses.fields(record)}  # pyright: ignore
    hints = typing.get_type_hints(record, include_extras=True)
    unknown = [name for name in node if name not in fields]
    if unknown:
        raise InputError(f"{path}.{unknown[0]}: no such field; {_known(unknown[0], path, fields)}")
    missing = [name for name in fields if name not in node and default_of(fields[name]) is REQUIRED]
    if missing:
        raise InputError(f"{path}.{missing[0]} is missing; it must be {words(hints[missing[0]])}")
    values = {name: _value(hints[name], node[name], f"{path}.{name}") for name in node}
    try:
        return record(**values)
    except InputError as error:  # the record knows its fields, not where it stands
        said = str(error)
        joint = "." if said.split(" ")[0] in fields else ": "
        raise InputError(said if said.startswith(path) else f"{path}{joint}{said}") from None


def _known(name: Any, path: str, fields: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(name), fields, n=1)
    meant = f"did you mean {path}.{close[0]}? " if close else ""
    return f"{meant}{path} has {', '.join(fields)}"


def _value(hint: Any, value: Any, path: str) -> Any:
    if value is None and may_be_none(hint):
        return None
    inner = bare(hint)
    origin, arguments = typing.get_origin(inner), typing.get_args(inner)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{path} is {value!r}; allowed: {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, path)
    if dataclasses.is_dataclass(inner):
        return settings(typing.cast(type, inner), value, path)
    if inner is float and isinstance(value, int) and not isinstance(value, bool):
        value = _number(value, path)
    if not isinstance(value, inner) or (inner is int and isinstance(value, bool)):
        raise InputError(f"{path} is {value!r}; it must be {words(hint)}")
    return _number(value, path) if inner is float else _whole(value, path)


def _number(value: Any, path: str) -> float:
    """A number that float32 holds."""
    if not abs(value) <= LARGEST:  # NaN is refused too
        raise InputError(f"{path} is {value!r}; it must be a number, {LARGEST} at most")
    if 0 < abs(value) < SMALLEST:
        raise InputError(f"{path} is {value!r}; float32 holds 0, or {SMALLEST:.6g} and more")
    return float(value)


def _whole(value: Any, path: str) -> Any:
    """What is no number is left alone."""
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise InputError(f"{path} is {value}; whole numbers go up to {LARGEST_INT}")
    return value


def _tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise InputError(f"{path} is {value!r}; it must be a list")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise InputError(f"{path} is {value!r}; it must have {len(arguments)} items")
    return tuple(
        _value(hint, item, f"{path}[{index}]")
        for index, (hint, item) in enumerate(zip(arguments, value, strict=True))
    )

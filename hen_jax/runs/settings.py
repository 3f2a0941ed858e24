"""ConfigDict node -> frozen dataclass: unknown, missing and ill-typed fields are errors."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from hen_jax.core.errors import InputError

Record = TypeVar("Record")


def settings(record: type[Record], node: Any, path: str = "config") -> Record:
    """The dataclass `record` filled from a config node, nested dataclasses included.

    A field may be left out only where the dataclass gives a default.

    Raises:
      InputError: names the field as it stands in the config, such as `config.optimizer.clip`.
    """
    if not isinstance(node, ConfigDict | Mapping):
        raise InputError(f"{path} is {node!r}; it must be a group of fields")
    fields = {field.name: field for field in dataclasses.fields(record)}  # pyright: ignore
    hints = typing.get_type_hints(record)
    unknown = [name for name in node if name not in fields]
    if unknown:
        raise InputError(f"{path}.{unknown[0]}: no such field; {path} has {', '.join(fields)}")
    missing = [name for name in fields if name not in node and _required(fields[name])]
    if missing:
        raise InputError(f"{path}.{missing[0]} is missing; it must be a {hints[missing[0]]}")
    values = {name: _value(hints[name], node[name], f"{path}.{name}") for name in node}
    return record(**values)


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _value(inner, value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{path} is {value!r}; allowed: {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, path)
    if dataclasses.is_dataclass(hint):
        return settings(typing.cast(type, hint), value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{path} is {value!r}; it must be a {hint.__name__}")
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

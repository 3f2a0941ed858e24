"""The fields of settings, for people: dotted name, type in words, default, meaning."""

import ast
import dataclasses
import difflib
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import ranges

REQUIRED = dataclasses.MISSING
"""The default of a field that has none."""

Key = str | int
"""A step of a path: the name of a field, or a place in a list."""

Records = Sequence[type]
"""Dataclasses whose fields together make a config."""


class Field(NamedTuple):
    """One field of a config."""

    path: str  # such as optimizer.learning_rate
    hint: Any
    default: Any  # REQUIRED where there is none
    meaning: str  # the comment beside its declaration
    group: type | None  # the dataclass it holds, if it is a group of fields


def fields_of(records: Records, prefix: str = "") -> Iterator[Field]:
    """Every field, the groups' own after each group; a list's items are not walked."""
    for record in records:
        hints = typing.get_type_hints(record, include_extras=True)
        said = _comments(record)
        for field in dataclasses.fields(record):
            inner = bare(hints[field.name])
            group = inner if isinstance(inner, type) and dataclasses.is_dataclass(inner) else None
            path = f"{prefix}{field.name}"
            meaning = said.get(field.name, "") or (_headline(group) if group else "")
            yield Field(path, hints[field.name], default_of(field), meaning, group)
            if group is not None:
                yield from fields_of([group], f"{path}.")


def default_of(field: dataclasses.Field) -> Any:
    """The default of a dataclass field, or `REQUIRED`."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _headline(record: Any) -> str:
    """The first sentence of a docstring, without its full stop."""
    text = " ".join((inspect.getdoc(record) or "").split("\n\n")[0].split())
    return re.split(r"[.:;] ", text)[0].rstrip(".:")


@functools.cache
def _comments(record: type) -> dict[str, str]:
    """Name of a field -> the comment on the line of its declaration, here or in what it extends."""
    found: dict[str, str] = {}
    for one in reversed(record.__mro__):
        if dataclasses.is_dataclass(one):
            found |= _own_comments(one)
    return found


def _own_comments(record: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(record))
    lines = source.splitlines()
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            line = lines[(node.end_lineno or node.lineno) - 1].encode()
            after = line[node.end_col_offset or 0 :].decode()
            found[node.target.id] = after.partition("#")[2].strip()
    return found


def bare(hint: Any) -> Any:
    """A type without its `None` and its range: `Count | None` is `int`."""
    if typing.get_origin(hint) is Annotated:
        return bare(hint.__origin__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = [one for one in typing.get_args(hint) if one is not type(None)]
        return bare(inner)
    return hint


def may_be_none(hint: Any) -> bool:
    """Whether a field takes `None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return type(None) in typing.get_args(hint)
    return False


_PLAIN = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    type(None): "None",
}


def words(hint: Any) -> str:
    """A type as a person says it: "a whole number, 1 or more", "one of 'sgd', 'adam'"."""
    inner, allowed = bare(hint), [str(one) for one in ranges(hint)]
    if inner in _PLAIN:
        said = ", ".join([_PLAIN[inner], *allowed])
    elif typing.get_origin(inner) is typing.Literal:
        options = typing.get_args(inner)
        said = f"{'one of ' if len(options) > 1 else ''}{', '.join(map(repr, options))}"
    elif typing.get_origin(inner) is tuple:
        said = _list_words(typing.get_args(inner))
    elif dataclasses.is_dataclass(inner):
        said = f"a group of fields ({', '.join(one.name for one in dataclasses.fields(inner))})"
    else:
        raise TypeError(f"settings have no such type: {hint}")
    return f"{said}; or None" if may_be_none(hint) else said


def _list_words(arguments: tuple[Any, ...]) -> str:
    if arguments[-1] is Ellipsis:
        return f"a list, each item {words(arguments[0])}"
    return f"a list of {len(arguments)}: {', '.join(map(words, arguments))}"


def hint_at(records: Records, keys: Sequence[Key]) -> Any:
    """The type of the field at a path.

    Raises:
      InputError: there is no such field; says which was perhaps meant.
    """
    hint: Any = None
    for at, key in enumerate(keys):
        groups = records if at == 0 else [bare(hint)]
        if isinstance(key, int):
            arguments = typing.get_args(groups[0])
            if typing.get_origin(groups[0]) is not tuple or arguments[-1] is not Ellipsis:
                raise InputError(f"{dotted(keys[:at])} is no list; it is {words(hint)}")
            hint = arguments[0]
            continue
        hints = {
            name: one
            for group in groups
            if dataclasses.is_dataclass(group)
            for name, one in typing.get_type_hints(group, include_extras=True).items()
        }
        if key not in hints:
            raise InputError(f"{dotted(keys)}: no such field{suggestion(records, keys)}")
        hint = hints[key]
    return hint


def suggestion(records: Records, keys: Sequence[Key]) -> str:
    """ "; did you mean config.optimizer.learning_rate?", or where to read all fields.

    Tried in this order: the same name elsewhere or initials (`lr`), names that look alike, names
    of which one is part of the other (`warmup_ratio`).
    """
    known = [field.path for field in fields_of(records)]
    last = str(keys[-1])
    ends = {path.rpartition(".")[2]: path for path in reversed(known)}
    close = [path for end, path in ends.items() if last in (end, _initials(end))]
    close += [ends[end] for end in difflib.get_close_matches(last, ends, n=2, cutoff=0.7)]
    close += [path for end, path in ends.items() if _part(last, end) or _part(end, last)]
    if not close:
        return "; `hen config FILE` lists all of them"
    first, *others = dict.fromkeys(close[:3])
    also = "".join(f" or config.{path}" for path in others)
    return f"; did you mean config.{first}{also}? `hen config FILE` lists all"


def _part(short: str, long: str) -> bool:
    return len(short) >= 4 and short in long


def _initials(name: str) -> str:
    """`learning_rate` is `lr`."""
    return "".join(part[:1] for part in name.split("_"))


def dotted(keys: Sequence[Key]) -> str:
    """`("sources", 0, "path")` is `config.sources[0].path`."""
    return "config" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)


def keys_of(path: str) -> list[Key]:
    """The steps of a dotted path: `sources[0].path` is `["sources", 0, "path"]`."""
    return [int(key) if key.isdigit() else key for key in re.findall(r"[^.\[\]]+", path)]

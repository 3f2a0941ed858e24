"""Config files: found by path or by built-in name, their variants, overrides of any field."""

import ast
import difflib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from hen_jax.core.errors import InputError
from hen_jax.core.fields import Key, Records, bare, hint_at, keys_of, may_be_none
from hen_jax.core.modules import load_module, running

BUILT_IN = Path(__file__).parents[1] / "configs"
"""The configs that come with the package: a link to `configs/` in a checkout, a copy in a wheel."""


class ConfigFile(NamedTuple):
    """A config file, opened."""

    path: Path
    variants: tuple[str, ...]  # what `FILE.py:VARIANT` may name, the default first
    get_config: Callable[..., Any]
    doc: str


def built_in() -> list[str]:
    """The names that `--config=NAME` knows without a path."""
    return sorted(path.stem for path in BUILT_IN.glob("*.py"))


def find_config(name: str) -> Path:
    """The file at a path, or the built-in config of that name.

    Raises:
      InputError: neither.
    """
    if Path(name).is_file():
        return Path(name)
    known = built_in()
    if name in known:
        return BUILT_IN / f"{name}.py"
    close = difflib.get_close_matches(Path(name).stem, known, n=1, cutoff=0.6)
    meant = f"; did you mean --config={close[0]}?" if close else ""
    raise InputError(f"{name}: no such config file{meant}; built in are {', '.join(known)}")


def open_config(path: Path) -> ConfigFile:
    """Reads a config file, without building its config.

    Its variants are written in the type of its argument:
    `def get_config(variant: Literal["smollm2", "tiny"] = "smollm2")`.

    Raises:
      InputError: the file is no Python, or defines no `get_config`.
    """
    module = load_module(path)
    get_config = vars(module).get("get_config")
    if not callable(get_config):
        raise InputError(f"{path} defines no get_config; it must, and return a ConfigDict")
    with running(path):  # a type may be a text that names nothing
        arguments = list(inspect.signature(get_config).parameters.values())
        hints = typing.get_type_hints(get_config)
    variants: tuple[str, ...] = ()
    if arguments:
        hint = hints.get(arguments[0].name)
        variants = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        first = arguments[0].default
        variants = tuple(sorted(variants, key=lambda name: name != first))
    return ConfigFile(path, variants, get_config, inspect.getdoc(module) or "")


def read_run_config(named: str) -> ConfigDict:
    """The config of `FILE.py`, `FILE.py:VARIANT`, `NAME` or `NAME:VARIANT`.

    Raises:
      InputError: no such file or variant, or the file returns no `ConfigDict`.
    """
    name, colon, variant = named.partition(":")
    opened = open_config(find_config(name))
    if colon and variant not in opened.variants:
        raise InputError(f"{name} has no variant {variant!r}{_variants_told(opened, variant)}")
    with running(opened.path):
        config = opened.get_config(variant) if colon else opened.get_config()
    if not isinstance(config, ConfigDict):
        raise InputError(f"{name}: get_config returned {type(config).__name__}, not a ConfigDict")
    return config


def _variants_told(opened: ConfigFile, variant: str) -> str:
    if not opened.variants:
        return (
            "; it names none. A file names them in the type of its argument: "
            'get_config(variant: Literal["a", "b"] = "a")'
        )
    close = difflib.get_close_matches(variant, opened.variants, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{meant} there are {', '.join(opened.variants)}"


def with_overrides(config: ConfigDict, records: Records, overrides: Sequence[str]) -> ConfigDict:
    """The config with flags such as `--config.optimizer.weight_decay=0.1` applied.

    Any field of the settings may be set, whether the file spells it out or not: also in a list
    (`--config.sources[0].path=mine.jsonl`) and in a group that is None (`--config.adapter.rank=8`).

    Raises:
      InputError: a flag without a value, or a field that the settings do not have.
    """
    node: Any = plain_config(config)
    for override in overrides:
        path, equals, text = override.removeprefix("--config.").partition("=")
        if not equals:
            raise InputError(f"{override}: give a value, as in --config.{path}=VALUE")
        keys = keys_of(path)
        hint = hint_at(records, keys)
        node = _replaced(node, keys, parsed_value(hint, text), "config")
    return ConfigDict(node)


def parsed_value(hint: Any, text: str) -> Any:
    """The value that a text gives a field; `settings` checks it. What is no literal is text."""
    inner = bare(hint)
    if may_be_none(hint) and text == "None":
        return None
    if inner is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return text if inner is str and not isinstance(value, str) else value


def _replaced(node: Any, keys: Sequence[Key], value: Any, path: str) -> Any:
    """`node` with the value at `keys` replaced; groups that are None or absent are made."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(key, int):
        items = list(node or ())
        if key >= len(items):
            raise InputError(f"{path}[{key}]: the list has {len(items)} items, counted from 0")
        items[key] = _replaced(items[key], rest, value, f"{path}[{key}]")
        return tuple(items)
    fields = dict(node) if isinstance(node, Mapping) else {}
    return fields | {key: _replaced(fields.get(key), rest, value, f"{path}.{key}")}


def plain_config(value: Any) -> Any:
    """A config as dicts and tuples."""
    if isinstance(value, ConfigDict | Mapping):
        return {key: plain_config(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(plain_config, value))
    return value

"""YAML that people write: plain values alone, each key once, and one line for whatever is wrong."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from hen_jax.core.errors import InputError

MOST_DIGITS = 18
"""Of a whole number: the greatest that 64 bits hold have one more."""


def read_yaml(path: Path) -> Any:
    """What a file holds.

    Raises:
      InputError: it cannot be read, or as `parse_yaml` says (`file: what is wrong`).
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:  # no UTF-8, or a name that no file has
        raise InputError(f"{path}: cannot be read ({error})") from None


def parse_yaml(text: str) -> Any:
    """What a YAML text holds; JSON is YAML, too.

    An alias (`*name`) is refused: a few lines of them stand for more than any memory holds.

    Raises:
      InputError: `line N: what is wrong`, or what is no YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except InputError:
        raise
    except RecursionError:
        raise InputError("not valid YAML (nested too deep)") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        first = " ".join(str(error).split())[:160]
        raise InputError(f"not valid YAML ({first})") from None


class _Loader(yaml.SafeLoader):
    """yaml's own, but for what it would let pass."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise InputError(
                f"line {event.start_mark.line + 1}: *{event.anchor} is an alias; write out what "
                "it stands for"
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> str:
        text = super().construct_scalar(node)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(f"{_line(node)}: half of a character (\\uD800 to \\uDFFF)")
        return text


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > MOST_DIGITS:
        raise InputError(f"{_line(node)}: a number of more than {MOST_DIGITS} digits")
    return loader.construct_yaml_int(node)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    """A key that stands twice is refused, where yaml keeps the last."""
    found: dict[Hashable, Any] = {}
    for key, value in loader.construct_pairs(node, deep=True):
        if key in found:
            raise InputError(f"{_line(node)}: {key!r} stands twice")
        found[key] = value
    return found


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

"""Which linear layers a PEFT adapter changes: names or a pattern, less exclusions, in some layers.

The rules are those of `check_target_module_exists` of PEFT 0.21.2.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import regex

from hen_jax.core.errors import InputError
from hen_jax.core.shapes import shown

MATCH_SECONDS = 1.0
"""How long one pattern may search one name; a pattern that backtracks forever is refused."""

ALL_LINEAR = "all-linear"


class Targets(NamedTuple):
    """What decides whether a module is adapted; a text is a pattern, a tuple holds name endings."""

    modules: str | tuple[str, ...] = ALL_LINEAR
    excluded: str | tuple[str, ...] = ()
    layers: tuple[int, ...] = ()  # none: all of them; PEFT ignores it beside a pattern
    layers_patterns: tuple[str, ...] = ()  # what the list of layers is called; none: anything

    def adapts(self, module: str) -> bool:
        """Whether a linear layer of a block, e.g. `model.layers.3.self_attn.q_proj`, is adapted."""
        if self.excluded and _names(self.excluded, module):
            return False
        if isinstance(self.modules, str):
            return self.modules.lower() == ALL_LINEAR or _names(self.modules, module)
        return _names(self.modules, module) and (not self.layers or self._layer(module))

    def _layer(self, module: str) -> bool:
        for pattern in self.layers_patterns or (r"[^.]*",):
            found = searched(rf"(?:.*?\.)?(?:{pattern})\.(?P<index>\d+)\.", module, whole=False)
            if found:
                return int(found["index"]) in self.layers
        return False


def read_targets(path: Path, found: Mapping[str, Any]) -> Targets:
    """The targets of an `adapter_config.json`; without `target_modules`, whatever is stored.

    Raises:
      InputError: a field of another type.
    """
    modules = _text_or_names(path, found, "target_modules")
    layers = found.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers or []
    if not isinstance(layers, list) or not all(type(index) is int for index in layers):
        raise InputError(f"{path}: 'layers_to_transform' is {shown(layers)}; give layer numbers")
    patterns = _text_or_names(path, found, "layers_pattern")
    return Targets(
        modules or ALL_LINEAR,
        _text_or_names(path, found, "exclude_modules"),
        tuple(layers),
        (patterns,) if isinstance(patterns, str) else patterns,
    )


def searched(pattern: str, module: str, whole: bool = True) -> regex.Match | None:
    """The match of a pattern of a file from the start of a name, to its end if `whole`.

    Raises:
      InputError: it is no regular expression, or searches for longer than `MATCH_SECONDS`.
    """
    try:
        match = regex.fullmatch if whole else regex.match
        return match(pattern, module, timeout=MATCH_SECONDS)
    except regex.error as error:
        raise InputError(f"pattern {shown(pattern, 100)} of the adapter is none: {error}") from None
    except TimeoutError:
        raise InputError(
            f"pattern {shown(pattern, 100)} of the adapter searches {module!r} for more than "
            f"{MATCH_SECONDS:g} s; write the module names out"
        ) from None


def _names(named: str | tuple[str, ...], module: str) -> bool:
    if isinstance(named, str):
        return searched(named, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in named)


def _text_or_names(path: Path, found: Mapping[str, Any], key: str) -> str | tuple[str, ...]:
    value = found.get(key) or ()
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise InputError(f"{path}: {key!r} is {shown(value)}; give names, or one pattern")

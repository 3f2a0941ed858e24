"""Who writes, about what, and what the models are told: one TOML file for each language.

The shipped files are ours. A file of your own may hold any of their tables; what it leaves out is
as shipped, `[openings]` and `[prompts]` key by key. A context that is added by a `patterns.toml`
needs openings of its tasks.
"""

import dataclasses
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_toml
from hen_jax.data import fields
from hen_jax.data.rows import Row
from hen_jax.data.steered import FAULTS, Persona
from hen_jax.empathy.labels import Language
from hen_jax.empathy.patterns import DIMENSIONS


@dataclasses.dataclass(frozen=True)
class Materials:
    """The tables of a language; texts hold the braces that `BRACES` allows them."""

    language: Language
    personas: tuple[Persona, ...]
    openings: Mapping[str, tuple[str, ...]]  # by task
    prompts: Mapping[str, str]
    dimensions: Mapping[str, str]  # as advice
    faults: Mapping[str, str]
    wishes: Mapping[str, str]  # warm, cool
    rubric: Mapping[str, Any]  # about, levels


_PERSONA = tuple(field.name for field in dataclasses.fields(Persona))

BRACES: Mapping[str, tuple[str, ...]] = {
    "user": (*_PERSONA, "about", "opening", "turns"),
    "begin": (),
    "last": (),
    "coherency": (),
    "weighs": ("dimensions",),
    "cold": (),
    "gushing": (),
    "length": ("words",),
    "hard": ("fault", "conversation", "reply"),
}
"""The prompts, and what each may take in braces."""

_TEXTS: Mapping[str, Collection[str]] = {
    "prompts": BRACES,
    "dimensions": DIMENSIONS,
    "faults": FAULTS,
    "wishes": ("warm", "cool"),
}


def load_materials(language: Language, path: Path | None = None) -> Materials:
    """The shipped file of a language, with what the file at `path` says otherwise.

    Raises:
      InputError: no such file, no TOML, or `file: table.key: what; allowed: ...`.
    """
    shipped = Path(str(resources.files(__name__.rpartition(".")[0]))) / "materials"
    tables = read_toml(shipped / f"{language}.toml", "materials")
    if path is None:
        return parse_materials(tables, language)
    own = read_toml(path, "materials")
    for key, value in own.items():
        merges = isinstance(value, dict) and isinstance(tables.get(key), dict)
        tables[key] = tables[key] | value if merges else value
    try:
        return parse_materials(tables, language)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_materials(tables: Row, language: Language) -> Materials:
    """The tables, each of its fields read.

    Raises:
      InputError: `table.key: what; allowed: ...`.
    """
    fields.known_keys(tables, (*_TEXTS, "personas", "openings", "rubric"))
    texts = {name: _texts(tables, name, keys) for name, keys in _TEXTS.items()}
    for name, text in texts["prompts"].items():
        _check_braces(f"prompts.{name}", text, BRACES[name])
    personas = fields.items_field(tables, "personas", _persona)
    if not personas:
        raise InputError("personas: none; give at least one")
    rubric = _table(tables, "rubric")
    fields.known_keys(rubric, ("about", "levels"))
    _check_braces("rubric.about", fields.text_field(rubric, "about"), ("about", "level", "rules"))
    return Materials(language, personas, _openings(tables), rubric=rubric, **texts)


def _table(tables: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = tables[name]
    if not isinstance(table, dict):
        raise InputError(f"{name}: {fields.shown(table)}; allowed: a table [{name}]")
    return table


def _texts(tables: Mapping[str, Any], name: str, keys: Collection[str]) -> dict[str, str]:
    table = _table(tables, name)
    try:
        fields.known_keys(table, tuple(keys))
        return {key: fields.text_field(table, key).strip() for key in keys}
    except InputError as error:
        raise InputError(f"{name}.{error}") from None


def _persona(row: Row) -> Persona:
    fields.known_keys(row, _PERSONA)
    return Persona(**{key: fields.text_field(row, key) for key in _PERSONA})


def _openings(tables: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found = {}
    for task, lines in _table(tables, "openings").items():
        if not isinstance(lines, list) or not lines:
            raise InputError(f"openings.{task}: {lines!r}; allowed: a list of at least one text")
        rows = [{f"openings.{task}[{at}]": line} for at, line in enumerate(lines)]
        found[task] = tuple(fields.text_field(row, key) for row in rows for key in row)
    return found


def _check_braces(place: str, text: str, allowed: Collection[str]) -> None:
    try:
        named = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise InputError(f"{place}: {error}; write {{{{ for a brace that stays") from None
    for name in sorted(named - set(allowed)):
        shown = ", ".join(f"{{{one}}}" for one in allowed) or "none"
        raise InputError(f"{place}: {{{name}}} is no such field; allowed in braces: {shown}")

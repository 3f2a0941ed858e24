"""Contexts and their empathy patterns as a file that a domain person edits: `patterns.toml`.

A table for each context. `about`, and each of the `rules`, is a text, or one for each language; a
file need not have our four contexts and may have others:

    [grief]
    level = 0.95                       # desired empathy, 0 to 1
    tasks = ["bereavement"]            # kinds of conversation that belong to it
    about = { en = "the death of someone close", zh = "亲近的人去世" }
    rules = [{ en = "Name the one who died.", zh = "提那个人的名字。" }]
    limits = { questions = 1, formulas = 0 }

    [grief.weights]                    # of the seven SENSE-7 dimensions; they sum to 1
    Affective = 0.4
    ...

`hen data patterns` writes ours as such a file, and what SENSE-7 data says in their place.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_toml
from hen_jax.core.shapes import shown
from hen_jax.data import fields
from hen_jax.data.rows import Row
from hen_jax.empathy.clusters import CONTEXTS, Context
from hen_jax.empathy.labels import LANGUAGES, Words
from hen_jax.empathy.patterns import DIMENSIONS, PATTERNS, Limits, Pattern

PATTERNS_FILE = "patterns.toml"
"""Beside a data file, it says which contexts the file's records may have."""

SUM_WITHIN = 0.005
"""How far weights may be from a sum of 1, as rounded ones are; then they are scaled."""


class Guide(NamedTuple):
    """A context, and how to be empathetic there."""

    context: Context
    pattern: Pattern


Guides = Mapping[str, Guide]
"""By the context's name."""


def default_guides() -> dict[str, Guide]:
    """Our four contexts."""
    return {name: Guide(CONTEXTS[name], PATTERNS[name]) for name in CONTEXTS}


def read_guides(path: Path) -> dict[str, Guide]:
    """The contexts of a file.

    Raises:
      InputError: no such file, no TOML, or `file: context.field: what; allowed: ...`.
    """
    tables = read_toml(path, "patterns")
    try:
        return parse_guides(tables)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_guides(tables: Mapping[str, Any]) -> dict[str, Guide]:
    """The contexts from the tables of a file.

    Raises:
      InputError: `context.field: what; allowed: ...`; also for a task of two contexts.
    """
    if not tables:
        raise InputError("no context; give each a table such as [distress]")
    guides = {name: _guide(name, table) for name, table in tables.items()}
    owner: dict[str, str] = {}
    for name, guide in guides.items():
        for task in guide.context.tasks:
            if owner.setdefault(task, name) != name:
                raise InputError(f"{name}.tasks: {task!r} is of {owner[task]}, too; keep it in one")
    return guides


def contexts_beside(path: Path) -> Mapping[str, Context]:
    """The contexts of a data file: those of the `patterns.toml` beside it, or else ours.

    Raises:
      InputError: there is one, and it is bad.
    """
    beside = Path(path).parent / PATTERNS_FILE
    if not beside.is_file():
        return CONTEXTS
    return {name: guide.context for name, guide in read_guides(beside).items()}


def context_of_task(guides: Guides) -> dict[str, str]:
    """Which context each task belongs to."""
    return {task: name for name, guide in guides.items() for task in guide.context.tasks}


def guides_toml(guides: Guides, comments: Mapping[str, Sequence[str]] = {}) -> str:
    """The file that `parse_guides` reads as these; `comments` stand above a context's table."""
    parts = ["# What empathy each context asks for. Edit it; `hen synthesize --patterns` reads it."]
    for name, guide in guides.items():
        parts.append("\n".join([*(f"# {line}" for line in comments.get(name, ())), *_table(guide)]))
    return "\n\n".join(parts) + "\n"


_NEEDED = ("level", "tasks", "about", "rules", "weights")


def _guide(name: str, table: object) -> Guide:
    if not name.isidentifier():
        raise InputError(f"context {name!r}; give letters, digits and underscores")
    if not isinstance(table, dict):
        raise InputError(
            f"{name}: {shown(table)}; allowed: a table [{name}] of {', '.join(_NEEDED)}"
        )
    try:
        fields.known_keys(table, _NEEDED, ("limits",))
        level = fields.number_field(table, "level", 0, 1)
        words = _words(table["about"], "about")
        rules = tuple(_words(rule, f"rules[{at}]") for at, rule in enumerate(_some(table, "rules")))
        limits = _limits(table.get("limits", {}))
        pattern = Pattern(name, level, _weights(table["weights"]), rules, limits)
        return Guide(Context(_tasks(table), level, words), pattern)
    except InputError as error:
        raise InputError(f"{name}.{error}") from None


def _some(table: Mapping[str, Any], key: str) -> list[Any]:
    value = table[key]
    if not isinstance(value, list) or not value:
        raise InputError(f"{key}: {shown(value)}; allowed: a list of at least one")
    return value


def _tasks(table: Mapping[str, Any]) -> tuple[str, ...]:
    tasks = _some(table, "tasks")
    for task in tasks:
        if not isinstance(task, str) or not task.isidentifier():
            raise InputError(f"tasks: {shown(task)}; allowed: letters, digits and underscores")
    return tuple(tasks)


def _words(value: object, key: str) -> Words:
    if not isinstance(value, str | dict):
        raise InputError(f"{key}: {shown(value)}; allowed: a text, or one for each language")
    row: Row = {**dict.fromkeys(LANGUAGES, value)} if isinstance(value, str) else value
    try:
        fields.known_keys(row, LANGUAGES)
        return Words(**{language: fields.text_field(row, language) for language in LANGUAGES})
    except InputError as error:
        raise InputError(f"{key}.{error}") from None


def _weights(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise InputError(f"weights: {shown(value)}; allowed: a number for each of {_DIMENSIONS}")
    try:
        fields.known_keys(value, tuple(DIMENSIONS))
        given = {name: fields.number_field(value, name, 0, 1) for name in DIMENSIONS}
    except InputError as error:
        raise InputError(f"weights.{error}") from None
    total = sum(given.values())
    if abs(total - 1) > SUM_WITHIN:
        raise InputError(f"weights: they sum to {total:g}; allowed: a sum of 1")
    return {name: weight / total for name, weight in given.items()}


_DIMENSIONS = ", ".join(DIMENSIONS)


def _limits(value: object) -> Limits:
    allowed = tuple(vars(Limits()))
    if not isinstance(value, dict):
        raise InputError(f"limits: {shown(value)}; allowed: a table of {', '.join(allowed)}")
    for key, number in value.items():
        if key not in allowed:
            raise InputError(f"limits.{key}: unknown; allowed: {', '.join(allowed)}")
        if type(number) is not int or number < 0:
            raise InputError(f"limits.{key}: {shown(number)}; allowed: a whole number, 0 or more")
    return Limits(**value)


def _table(guide: Guide) -> list[str]:
    context, pattern = guide
    limits = {key: value for key, value in vars(pattern.limits).items() if value is not None}
    rules = [f"  {_inline(vars(rule))}," for rule in pattern.rules]
    return [
        f"[{pattern.context}]",
        f"level = {pattern.level:.4g}",
        f"tasks = [{', '.join(map(_quoted, context.tasks))}]",
        f"about = {_inline(vars(context.words))}",
        *["rules = [", *rules, "]"],
        *([f"limits = {_inline(limits)}"] if limits else []),
        f"[{pattern.context}.weights]",
        *(f"{name} = {weight:.4f}" for name, weight in pattern.weights.items()),
    ]


def _inline(values: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {_quoted(value)}" for key, value in values.items()) + " }"


def _quoted(value: object) -> str:
    """A value as TOML: a JSON string without escapes beyond its own is a basic string."""
    return json.dumps(value, ensure_ascii=False)

"""Rubrics: what a judge looks at and how its scale is to be read, one YAML file for each language.

The shipped ones are ours in their wording: one for each context of `empathy.clusters`, one for
high-context replies, one for any conversation. A file of your own has the same keys.
"""

import dataclasses
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.empathy.labels import LANGUAGES, Language

LONGEST_SCALE = 100
"""Steps of a scale at most."""


@dataclasses.dataclass(frozen=True)
class Rubric:
    """What is judged, and what the scores mean."""

    name: str
    language: Language
    about: str
    low: int
    high: int
    levels: Mapping[int, str]  # in words; both ends at least
    dimensions: Mapping[str, str]
    context: str | None = None  # of `empathy.clusters`, where it is for one


def load_rubric(source: str, language: Language = "en") -> Rubric:
    """A rubric by its shipped name, in that language, or a file's own.

    Raises:
      InputError: no such rubric, or a file that is none (`file: field: what is wrong`).
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml", ".json"):
        return _read(path)
    shipped = _folder() / f"{source}.{language}.yaml"
    if source not in rubric_names():
        raise InputError(
            f"rubric {source!r}; allowed: {', '.join(rubric_names())}, or a .yaml file"
        )
    return _read(shipped)


def rubric_names() -> list[str]:
    """The shipped rubrics."""
    return sorted({file.name.partition(".")[0] for file in _folder().glob("*.yaml")})


def parse_rubric(given: Any) -> Rubric:
    """A rubric from what its file holds.

    Raises:
      InputError: `field: what is wrong; what is allowed`.
    """
    if not isinstance(given, dict):
        raise InputError("no mapping of fields; give name, language, about, scale, levels, ...")
    if "scale" not in given:
        raise InputError("scale: missing; a rubric needs one, such as `scale: [1, 5]`")
    for key in _NEEDED:
        if key not in given:
            raise InputError(f"{key}: missing; a rubric needs {', '.join(_NEEDED)}")
    for key in given:
        if key not in (*_NEEDED, "context"):
            raise InputError(f"{key}: unknown; allowed: {', '.join(_NEEDED)}, context")
    low, high = _scale(given["scale"])
    context = given.get("context")
    if context is not None and context not in list(CONTEXTS):
        raise InputError(f"context: {_shown(context)}; allowed: {', '.join(CONTEXTS)}")
    if given["language"] not in LANGUAGES:
        raise InputError(f"language: {_shown(given['language'])}; allowed: {', '.join(LANGUAGES)}")
    return Rubric(
        name=_text(given["name"], "name"),
        language=given["language"],
        about=_text(given["about"], "about"),
        low=low,
        high=high,
        levels=_levels(given["levels"], low, high),
        dimensions=_dimensions(given["dimensions"]),
        context=context,
    )


_NEEDED = ("name", "language", "about", "scale", "levels", "dimensions")


def _scale(value: object) -> tuple[int, int]:
    match value:
        case [int(low), int(high)] if 0 < high - low <= LONGEST_SCALE and type(low) is int:
            return low, high
    raise InputError(
        f"scale: {_shown(value)}; allowed: two whole numbers, the lower first, such as [1, 5]"
    )


def _levels(value: object, low: int, high: int) -> dict[int, str]:
    if not isinstance(value, dict):
        raise InputError(
            f"levels: {_shown(value)}; allowed: a text for each score, both ends at least"
        )
    found: dict[int, str] = {}
    for key, text in value.items():
        score = int(key) if isinstance(key, str) and key.isdigit() else key  # as JSON has keys
        if type(score) is not int or not low <= score <= high:
            raise InputError(f"levels: {_shown(key)} is off the scale of {low} to {high}")
        if score in found:
            raise InputError(f"levels: {key!r} stands twice")
        found[score] = _text(text, f"levels.{key}")
    for end in (low, high):
        if end not in found:
            raise InputError(f"levels: {end} is not described; describe both ends at least")
    return dict(sorted(found.items()))


def _dimensions(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise InputError("dimensions: none; name at least one and say what it looks at")
    return {
        _text(name, "dimensions"): _text(text, f"dimensions.{name}") for name, text in value.items()
    }


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{field}: {_shown(value)}; allowed: a text that is not blank")
    return " ".join(value.split())


def _shown(value: object) -> str:
    return f"{value!r:.80}"


def _read(path: Path) -> Rubric:
    from hen_jax.core.yaml_text import read_yaml  # only who judges needs it

    given = read_yaml(path)
    try:
        return parse_rubric(given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _folder() -> Path:
    return Path(str(resources.files(__name__)))

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
    if context is not None and context not in CONTEXTS:
        raise InputError(f"context: {context!r}; allowed: {', '.join(CONTEXTS)}")
    if given["language"] not in LANGUAGES:
        raise InputError(f"language: {given['language']!r}; allowed: {', '.join(LANGUAGES)}")
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
        f"scale: {value!r}; allowed: two whole numbers, the lower first, such as [1, 5]"
    )


def _levels(value: object, low: int, high: int) -> dict[int, str]:
    if not isinstance(value, dict):
        raise InputError(f"levels: {value!r}; allowed: a text for each score, both ends at least")
    found: dict[int, str] = {}
    for key, text in value.items():
        score = int(key) if isinstance(key, str) and key.isdigit() else key  # as JSON has keys
        if type(score) is not int or not low <= score <= high:
            raise InputError(f"levels: {key!r} is off the scale of {low} to {high}")
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
        raise InputError(f"{field}: {value!r}; allowed: a text that is not blank")
    return " ".join(value.split())


def _read(path: Path) -> Rubric:
    try:
        return parse_rubric(_yaml(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _yaml(path: Path) -> Any:
    import yaml  # only who judges needs it

    class Loader(yaml.SafeLoader):
        """JSON is YAML, too; a key that stands twice is refused, where yaml keeps the last."""

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
        pairs = loader.construct_pairs(node, deep=True)
        found: dict[Any, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"line {node.start_mark.line + 1}: {key!r} stands twice")
            found[key] = value
        return found

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise InputError("no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})") from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        first = " ".join(str(error).split())[:160]
        raise InputError(f"not valid YAML ({first})") from None


def _folder() -> Path:
    return Path(str(resources.files(__name__)))

"""The lenses of Chain-of-Empathy: how one school of therapy looks for a cause, a file for each.

The wording is ours; which schools there are, and what each looks for, is of Lee et al. (2023).
"""

import dataclasses
from importlib import resources
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.yaml_text import read_yaml
from hen_jax.empathy.labels import LANGUAGES, Language, Words


@dataclasses.dataclass(frozen=True)
class Lens:
    """What a school looks for behind a feeling, and what a reply in its spirit wants."""

    name: str
    title: Words
    looks_for: Words
    aims_at: Words


def load_lens(source: str) -> Lens:
    """A lens by its shipped name, or from a file of yours with the same keys.

    Raises:
      InputError: no such lens, or a file that is none (`file: field: what is wrong`).
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        if source not in lens_names():
            raise InputError(f"lens {source!r}; allowed: {', '.join(lens_names())}, or a .yaml")
        path = _folder() / f"{source}.yaml"
    given = read_yaml(path)
    if not isinstance(given, dict) or set(given) != {"name", *_TEXTS}:
        raise InputError(f"{path}: a lens has the fields name, {', '.join(_TEXTS)}")
    return Lens(str(given["name"]), *(_words(path, key, given[key]) for key in _TEXTS))


def lens_names() -> list[str]:
    """The shipped lenses."""
    return sorted(file.name.partition(".")[0] for file in _folder().glob("*.yaml"))


_TEXTS = ("title", "looks_for", "aims_at")


def _words(path: Path, key: str, value: object) -> Words:
    if not isinstance(value, dict) or set(value) != set(LANGUAGES):
        raise InputError(f"{path}: {key}: give a text for each of {', '.join(LANGUAGES)}")
    texts: dict[Language, str] = {one: str(value[one]).strip() for one in LANGUAGES}
    return Words(**texts)


def _folder() -> Path:
    return Path(str(resources.files(__name__)))

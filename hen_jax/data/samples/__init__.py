"""The data that ships with hen_jax: CC0-1.0, synthetic; `README.md` is its data card."""

from importlib import resources
from pathlib import Path

from hen_jax.core.errors import InputError


def path(name: str) -> Path:
    """The file of a shipped set: `path("hed/hed.en.jsonl")`.

    Raises:
      InputError: no such file; lists those there are.
    """
    if name not in _names():
        raise InputError(f"no shipped data {name!r}; allowed: {', '.join(_names())}")
    return _folder() / name


def _names() -> list[str]:
    """Every shipped data file."""
    folder = _folder()
    return sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.suffix in (".jsonl", ".xlsx")
    )


def _folder() -> Path:
    return Path(str(resources.files(__name__)))

"""A Python file of a user's, loaded as a module."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from hen_jax.core.errors import InputError


def load_module(path: Path) -> ModuleType:
    """Runs the file at `path` and gives what it defines; it is entered nowhere.

    Raises:
      InputError: it is no Python file, or raised while it ran; names the file and the error.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    with running(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def running(path: Path) -> Iterator[None]:
    """What code of the file at `path` raises, or ends the program with, as one line.

    Raises:
      InputError: names the file and the error.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # a file of a user's may raise anything
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path}: {said}; mend it") from error

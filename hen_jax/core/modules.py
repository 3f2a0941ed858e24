"""A Python file of a user's, loaded as a module."""

import importlib.util
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
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a file of a user's may raise anything
        raise InputError(f"{path}: {type(error).__name__}: {error}; mend it") from error
    return module

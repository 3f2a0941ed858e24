"""Where a path leads to."""

import os
from pathlib import Path


def real_path(path: str | Path) -> Path:
    """The path without links; where links go round in a circle, the path as far as it leads.

    `Path.resolve` raises `RuntimeError` for a circle up to Python 3.12. Who opens the file then
    gets an `OSError` that says so.
    """
    return Path(os.path.realpath(path))

"""Files that are whole or absent: everything is written to a temporary name and renamed."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError

RECORD = "hen_jax.json"
"""The file that marks a folder as written by hen_jax and says how."""


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it replaces `path`, on error it is removed.

    The rename is atomic within one file system, so a reader sees the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    staged = Path(name)
    try:
        yield staged
        staged.chmod(0o666 & ~_umask())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success it takes the place of `path`.

    A folder already at `path` is replaced only if hen_jax wrote it (it holds `hen_jax.json`), and
    only after the new one is complete.

    Raises:
      InputError: `path` exists and was not written by hen_jax.
    """
    path = Path(path)
    require_ours(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    staged.chmod(0o777 & ~_umask())
    try:
        yield staged
        if path.exists():
            retired = staged.with_suffix(".old")
            path.replace(retired)
            try:
                staged.replace(path)
            except OSError:
                retired.replace(path)
                raise
            shutil.rmtree(retired)
        else:
            staged.replace(path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def require_ours(path: Path) -> None:
    """Raises `InputError` if `path` holds anything that hen_jax did not write."""
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file; give a folder that does not exist yet")
    if any(path.iterdir()) and not (path / RECORD).exists():
        raise InputError(
            f"{path} exists and was not written by hen_jax (no {RECORD} in it); "
            "give another folder or move this one away"
        )


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically."""
    with staged_file(path) as staged:
        staged.write_text(
            json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n",
            encoding="utf-8",
        )


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: the file is missing or is not JSON; names the file and the line.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

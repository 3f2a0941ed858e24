"""What every file of a checkpoint was when written, so that damage shows before it is used."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from hen_jax.core.checksums import THREADS, file_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, write_json

MANIFEST = "manifest.json"

CHANGING = "_CHECKPOINT_METADATA"
"""Orbax's note of when a checkpoint was begun and committed: written to again after the commit, and
not needed to read one."""


class _Entry(NamedTuple):
    """Size and checksum of a file."""

    bytes: int
    sha256: str


def write_manifest(folder: Path) -> None:
    """Writes `manifest.json` with the size and SHA-256 of every file in `folder`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHANGING)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        entries = list(pool.map(_entry, files))
    named = {
        path.relative_to(folder).as_posix(): entry._asdict()
        for path, entry in zip(files, entries, strict=True)
    }
    write_json(folder / MANIFEST, {"files": named})


def find_damage(folder: Path, index: int = 0, count: int = 1) -> str | None:
    """What is wrong with the files of `folder`: `state/d/3f2: 4096 bytes, 8192 were written`.

    Of `count` processes each looks at every `count`-th file, from its `index` on.
    """
    try:
        listed = read_json(folder / MANIFEST)["files"]
        entries = {name: _Entry(**entry) for name, entry in listed.items()}
    except (InputError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is missing or broken: {error}"
    mine = list(entries.items())[index::count]
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda item: _difference(folder / item[0], *item), mine)
        return next((fault for fault in found if fault), None)


def _difference(path: Path, name: str, written: _Entry) -> str | None:
    try:
        size = path.stat().st_size
        if size != written.bytes:
            return f"{name}: {size} bytes, {written.bytes} were written"
        return None if _entry(path) == written else f"{name}: not the bytes that were written"
    except OSError as error:
        return f"{name}: {error.strerror or error}"
    except ValueError as error:  # a NUL, or half a character, in the name
        return f"{name!r}: {error}"


def _entry(path: Path) -> _Entry:
    return _Entry(path.stat().st_size, file_sha256(path))

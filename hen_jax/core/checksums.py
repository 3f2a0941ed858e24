"""SHA-256 of files and folders: what was written, so that damage shows before it is believed."""

import functools
import hashlib
import io
import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

THREADS = 8

READ_BYTES = 2**18
"""Bytes hashed at a time."""

_SETTLED = 1.0
"""Seconds after which a change of a file is sure to change its time stamps, too."""


class _Stamp(NamedTuple):
    device: int
    inode: int
    size: int
    changed: int
    modified: int


_known: dict[_Stamp, str] = {}
_locks: dict[Path, threading.Lock] = {}


class CancelledError(RuntimeError):
    """The checksum is not wanted any more."""


def text_sha256(text: str) -> str:
    """SHA-256 of a text as UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path, cancelled: threading.Event | None = None) -> str:
    """SHA-256 of a file's content; within a process an unchanged file is read once.

    Raises:
      CancelledError: `cancelled` was set meanwhile.
    """
    with _locks.setdefault(path, threading.Lock()), path.open("rb", buffering=0) as file:
        stamp = _stamp(file.fileno())
        if stamp in _known:
            return _known[stamp]
        settled = time.time() - max(stamp.changed, stamp.modified) / 1e9 > _SETTLED
        digest = _digest(file, cancelled)
        if settled and _stamp(file.fileno()) == stamp:
            _known[stamp] = digest
        return digest


def files_sha256(
    paths: Iterable[Path], cancelled: threading.Event | None = None, threads: int = THREADS
) -> list[str]:
    """`file_sha256` of each, several at a time."""
    with ThreadPoolExecutor(min(threads, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda path: file_sha256(path, cancelled), paths))


def named_sha256(named: Sequence[tuple[str, Path]]) -> str:
    """SHA-256 over names and contents of files."""
    digest = hashlib.sha256()
    found = files_sha256(path for _, path in named)
    for (name, _), content in zip(named, found, strict=True):
        digest.update(name.encode() + bytes.fromhex(content))
    return digest.hexdigest()


@functools.cache
def code_sha256(*folders: str) -> str:
    """SHA-256 over all Python code in folders: what it computes may change with it."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _digest(file: io.FileIO, cancelled: threading.Event | None) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(READ_BYTES, max(1, os.fstat(file.fileno()).st_size))))
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
        if cancelled is not None and cancelled.is_set():
            raise CancelledError
    return digest.hexdigest()


def _stamp(handle: int) -> _Stamp:
    found = os.fstat(handle)
    return _Stamp(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns, found.st_mtime_ns)

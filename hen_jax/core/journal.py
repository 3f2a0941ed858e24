"""A file that grows line by line, so that a kill loses nothing of what stands in it.

The first line says what it is; each further one is a JSON object with a checksum of its own. One
process at a time writes; a line that a kill cut off is dropped at the next opening.
"""

import errno
import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError

_CHECKSUM = "crc32"
"""The field that no row of a caller may have."""


class Journal(NamedTuple):
    """What stood in the file when it was opened, and how to add to it."""

    rows: list[dict[str, Any]]
    append: Callable[[Iterable[Mapping[str, Any]]], None]  # on the disk when it returns


@contextmanager
def open_journal(path: Path, kind: str) -> Iterator[Journal]:
    """The journal at `path`, made if there is none; nobody else can write to it meanwhile.

    Raises:
      InputError: it is no journal of that kind, a line of it is damaged, or another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise InputError(
                f"another process writes to {path}; wait for it, or choose another folder"
            ) from None
        rows = _read(file, path, kind)

        def append(new: Iterable[Mapping[str, Any]]) -> None:
            text = "".join(map(_line, new))  # ASCII: no half characters
            file.write(text.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())

        if not rows:
            append([{"journal": kind}])
        yield Journal(rows[1:], append)


def _read(file: Any, path: Path, kind: str) -> list[dict[str, Any]]:
    """All whole lines, the first included; what a kill cut off is cut off the file.

    Nothing is cut off a file that is refused.
    """
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    if not whole and not _line({"journal": kind}).encode("ascii").startswith(data):
        raise InputError(_not_ours(path, kind))
    rows = []
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            row = _sound(json.loads(line))
        except (ValueError, RecursionError):
            row = None
        if number == 1 and row != {"journal": kind}:
            raise InputError(_not_ours(path, kind))
        if row is None:
            raise InputError(f"{path}:{number}: damaged; delete this line")
        rows.append(row)
    file.truncate(whole)
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps({**row, _CHECKSUM: _checksum(row)}) + "\n"


def _sound(row: Any) -> dict[str, Any] | None:
    """The row of a line without its checksum; None for a line that is not as it was written."""
    if not isinstance(row, dict):
        return None
    if _CHECKSUM not in row:  # a line of an earlier release
        return row
    written = row.pop(_CHECKSUM)
    return row if written == _checksum(row) else None


def _checksum(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(row).encode()):08x}"


def _not_ours(path: Path, kind: str) -> str:
    return f"{path} is no {kind} of hen_jax; give another name, or move it away"

"""Places where files grow before they are renamed, and what a killed process left in them.

A place is a folder `.NAME.hen-BOOT-RANDOM.part` beside what it is for. In it lie the file `owner`,
which the process that made it holds locked (`flock`: a kill frees it), and what is being written.
`BOOT` names the running system: within one, a lock is seen by all, whatever the file system.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO

ABANDONED = 7 * 24 * 3600
"""Seconds without a change after which a place that another system made counts as left over.

It may be alive on another machine that shares the file system, whose locks need not show here."""

OWNER, UNOWNED, RETIRED = "owner", "owner.new", "retired"
_PLACE = re.compile(r"\..*\.hen-([0-9a-f]{8})-\w+\.part")
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_NOT_OFFERED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def place_for(path: Path) -> Iterator[Path]:
    """A new folder beside `path` for what shall become `path`; it goes at the end, come what may.

    What killed processes left in the parent folder is removed first.
    """
    parent = path.parent
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    place, owner = _owned_place(path)
    with owner:
        try:
            yield place
        finally:
            _remove(place)


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder for files that are needed within; of killed processes none stays for long.

    It lies in `parent`, or where the system keeps temporary files.
    """
    folder = Path(tempfile.gettempdir() if parent is None else parent)
    with place_for(folder / "scratch") as place:
        (place / "scratch").mkdir()
        yield place / "scratch"


def sweep(parent: Path) -> None:
    """Removes the places in `parent` whose owner is dead, and puts back what one had set aside."""
    for place in parent.glob(".*.part"):
        found = _PLACE.fullmatch(place.name)
        if found and place.is_dir() and not place.is_symlink():
            with contextlib.suppress(OSError):  # not ours to remove, or another process is at it
                _sweep_place(place, here=found[1] == _system())


def is_place(path: Path) -> bool:
    """Whether it is such a place, of whatever process."""
    return _PLACE.fullmatch(path.name) is not None


def exchange(new: Path, path: Path, place: Path) -> None:
    """Swaps `new` with what is at `path`, so that a kill at any moment leaves one of them there.

    Where the system cannot swap two names at once, the old one is set aside in `place`, from where
    `sweep` puts it back after a kill.
    """
    if _swapped(new, path):
        return
    aside = place / RETIRED
    path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise


def make_durable(path: Path) -> None:
    """Returns when a file, or a folder with all that is in it, is on disk and not in memory only.

    A file system that cannot promise it is taken at its word.
    """
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            make_durable(entry)
    _flush(path)


def make_name_durable(path: Path) -> None:
    """Returns when the renaming of `path` is on disk."""
    _flush(path.parent)


def _flush(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # a file that was copied without the right to read
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
        finally:
            os.close(handle)


def _owned_place(path: Path) -> tuple[Path, IO[str]]:
    """A new place for `path` and its locked owner's file.

    Until it is locked another process may take it for one that a kill left, and remove it; then
    the next is made.
    """
    # A name has 255 bytes at most; the whole of it stands in `owner`.
    prefix = f".{path.name.encode()[:96].decode(errors='ignore')}.hen-{_system()}-"
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=path.parent))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            return place, _own(place, path.name)


def _own(place: Path, name: str) -> IO[str]:
    owner = (place / UNOWNED).open("w", encoding="utf-8")
    try:
        _lock(owner, wanted=True)
        owner.write(name)
        owner.flush()
        # Under its final name it is locked from the start: nobody can find it free too early.
        (place / UNOWNED).replace(place / OWNER)
    except BaseException:
        owner.close()
        raise
    return owner


def _sweep_unowned(place: Path) -> None:
    """After a kill between the making of a place and its lock: there is nothing in it to lose."""
    unowned = place / UNOWNED
    if unowned.exists():
        with unowned.open("r+", encoding="utf-8") as file:
            if not _lock(file):
                return
            unowned.unlink()
    place.rmdir()


def _sweep_place(place: Path, *, here: bool) -> None:
    owner = place / OWNER
    if here and not owner.exists():
        _sweep_unowned(place)
        return
    if not here:
        if _newest(place) < time.time() - ABANDONED:
            _remove(place)
        return
    with owner.open("r+", encoding="utf-8") as file:
        if _lock(file):
            _put_back(place, file.read())
            _remove(place)


def _put_back(place: Path, name: str) -> None:
    """After a kill between the two renames of `exchange`."""
    aside, path = place / RETIRED, place.parent / name
    if name and aside.exists() and not os.path.lexists(path):
        aside.rename(path)


def _remove(place: Path) -> None:
    """The owner's file goes last: what a kill leaves here is still found by the next sweep."""
    for entry in place.iterdir():
        if entry.name != OWNER:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (place / OWNER).unlink(missing_ok=True)
        place.rmdir()


def _newest(place: Path) -> float:
    return max(path.lstat().st_mtime for path in [place, *place.rglob("*")])


def _lock(file: IO[str], *, wanted: bool = False) -> bool:
    """Whether the file is now locked by this process alone.

    Raises:
      BlockingIOError: another holds it, and it is `wanted`.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if wanted:
            raise
        return False
    except OSError:  # a file system without locks
        return False
    return True


@functools.cache
def _system() -> str:
    """Names the running system of this machine: another one, and another start, has another."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = socket.gethostname()
    return sha256(boot.encode()).hexdigest()[:8]


def _swapped(one: Path, other: Path) -> bool:
    """Whether the two names were exchanged; False where the system cannot."""
    call = _renameat2()
    if call is None:
        return False
    here = -100  # AT_FDCWD
    if call(here, os.fsencode(one), here, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), str(other))


@functools.cache
def _renameat2():
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call

"""Folders that are whole or absent, and which of them may be replaced: only what we wrote."""

import contextlib
import errno
import shutil
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.links import real_path
from hen_jax.core.records import Record, changed_files, files_in, read_record, said_to_be
from hen_jax.core.staging import (
    exchange,
    is_place,
    make_durable,
    make_name_durable,
    place_for,
    sweep,
)

_ATTEMPTS = 10
"""How often the name may change under a command's hands before it gives up."""

RUN_KIND = "run"
"""What the record of a work directory calls it."""

_ELSE = "give another folder, or move this one away"


@contextlib.contextmanager
def staged_folder(path: Path, kind: str, disposable: Sequence[str] = ()) -> Iterator[Path]:
    """Yields a temporary folder on the same file system; on success it takes the place of `path`.

    What is at `path` is replaced only if `require_replaceable` lets it go, and only when the new
    one is complete. The two are exchanged at once: a kill or a power cut at any moment leaves one
    of them whole.

    Raises:
      InputError: something at `path` may not be replaced; nothing was touched then.
    """
    path = Path(path)
    require_replaceable(path, kind, disposable)
    with place_for(path) as place:
        staged = place / path.name
        staged.mkdir()
        yield staged
        make_durable(staged)
        for _ in range(_ATTEMPTS):
            if _published(staged, path, place, kind, disposable):
                make_name_durable(path)
                return
        raise InputError(f"{path} is written by several commands at once; let one of them end")


def require_replaceable(path: Path, kind: str, disposable: Sequence[str] = ()) -> None:
    """Refuses to replace anything but an empty folder or an earlier output of the same kind.

    An earlier output has a record of that kind, which lists every file in it, and each is still
    as it was written: nobody has added or changed anything. With `disposable` a folder whose every
    file matches one of these patterns may go, whatever it holds: a cache's entry.

    Raises:
      InputError: there is something else; names what.
    """
    path = Path(path)
    if not _is_folder(path):
        return
    sweep(path)
    entries = list(path.iterdir())
    if all(is_place(entry) or _matches(entry, disposable) for entry in entries) and (
        disposable or not entries
    ):
        return
    record = _readable_record(path)
    if record is None or record.get("kind") != kind:
        raise InputError(
            f"{path} exists and was not written by hen_jax as such a folder "
            f"({said_to_be(record)}, not {kind!r}); {_ELSE}"
        )
    listed = set(record.get("sha256", {}))
    foreign = sorted(set(files_in(path)) - listed) + _empty_folders(path)
    changed = changed_files(path, record, sorted(listed))
    if foreign or changed:
        what = "was not written" if foreign else "was changed since it was written"
        raise InputError(
            f"{path} is not replaced: {(foreign + changed)[0]} in it {what} by hen_jax; {_ELSE}"
        )


def require_run_folder(path: Path, besides: Collection[str] = (), kind: str = RUN_KIND) -> None:
    """Refuses a work directory that holds anything but a run, or files named in `besides`.

    `kind` is what its record calls it: a run, or a pipeline of several.

    Raises:
      InputError: there is a file, or a folder with other things in it.
    """
    path = Path(path)
    if path.is_symlink() and path.exists():
        path = real_path(path)  # a link to a run is a name for it: nothing there is replaced
    # A place that a killed run left, on this machine or another, is the beginning of one.
    if not _is_folder(path) or all(
        is_place(entry) or entry.name in besides for entry in path.iterdir()
    ):
        return
    record = read_record(path)
    if record is None or record.get("kind") != kind:
        raise InputError(
            f"{path} exists and was not written by hen_jax as the folder of a {kind} "
            f"({said_to_be(record)}); {_ELSE}"
        )


def require_apart(out: Path, *sources: Path | None) -> None:
    """Refuses an output that is one of the sources, holds one or lies in one.

    Raises:
      InputError: names both.
    """
    here = real_path(out)
    for source in filter(None, sources):
        there = real_path(source)
        if here == there:
            raise InputError(f"{out} is the source itself; give another folder")
        if here in there.parents or there in here.parents:
            how = "holds" if here in there.parents else "lies in"
            raise InputError(f"{out} {how} the source {source}; give a folder apart from it")


def _is_folder(path: Path) -> bool:
    """Whether there is a folder; False if there is nothing."""
    if path.is_symlink():
        raise InputError(f"{path} is a link; give the folder itself, or another name")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder that does not exist yet")
    return path.exists()


def _matches(entry: Path, patterns: Sequence[str]) -> bool:
    return entry.is_file() and any(fnmatch(entry.name, pattern) for pattern in patterns)


def _readable_record(path: Path) -> Record | None:
    try:
        return read_record(path)
    except InputError as error:
        raise InputError(f"{path} is not replaced: {error}") from None


def _empty_folders(path: Path) -> list[str]:
    folders = (entry for entry in sorted(path.rglob("*")) if entry.is_dir())
    return [str(entry.relative_to(path)) for entry in folders if not any(entry.iterdir())]


def _published(staged: Path, path: Path, place: Path, kind: str, disposable: Sequence[str]) -> bool:
    """Whether `staged` now is `path`; False if another process made or removed `path` meanwhile."""
    # Asked again: hours may have passed, and somebody's notes lie there now.
    require_replaceable(path, kind, disposable)
    try:
        if path.exists():
            shutil.copymode(path, staged)
            exchange(staged, path, place)
        else:
            staged.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY) and staged.exists():
            return False
        raise
    return True

"""Folders of a cache: built once, by whichever process comes first, and anew when damaged."""

import errno
from collections.abc import Callable
from pathlib import Path, PurePath

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.records import changed_files, files_in, require_record
from hen_jax.core.staging import exchange, make_durable, make_name_durable, place_for

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}


def built_once(
    path: Path, build: Callable[[Path], object], damage: Callable[[Path], str | None]
) -> None:
    """Lets a whole folder lie at `path`: the one that is there, or what `build` makes.

    It is built aside and renamed, so that a reader sees all of it or nothing, and a kill leaves
    nothing behind. Of several processes that build it at once the first one's stays, and the others
    drop theirs. One that is damaged is told of in one line, built anew, and exchanged at once,
    unless it holds a file that the new one does not: somebody else's.

    Raises:
      InputError: names such a file; nothing was touched.

    Args:
      build: makes the folder at the path that it is given.
      damage: what is wrong with such a folder; None where nothing is.
    """
    path = Path(path)
    if path.exists():
        fault = damage(path)
        if fault is None:
            return
        print(f"{path} is damaged ({fault}); it is made anew")
    with place_for(path) as place:
        new = place / path.name
        build(new)
        make_durable(new)
        try:
            new.rename(path)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            if damage(path) is None:
                return  # another process was first
            _require_ours(path, new)
            exchange(new, path, place)
        make_name_durable(path)


def _require_ours(old: Path, new: Path) -> None:
    made = set(files_in(new))
    for name in files_in(old):
        # What an entry gets later lies in folders with records of their own.
        inner = [old / parent / RECORD for parent in PurePath(name).parents if parent.name]
        if name not in made and not any(record.exists() for record in inner):
            raise InputError(
                f"{old} is not replaced: {name} in it was not written by hen_jax; move it away"
            )


def damage_of(folder: Path, kind: str) -> str | None:
    """What is wrong with a folder whose record lists the checksums of its files; None: nothing.

    All of each file is read, but once in a process.
    """
    try:
        record = require_record(folder, kind)
        listed = sorted(record.get("sha256", {}))
        missing = [name for name in listed if not (folder / name).is_file()]
        changed = changed_files(folder, record, listed)
    except (InputError, OSError) as error:
        return str(error).splitlines()[0]
    if missing or changed or not listed:
        return f"{[*missing, *changed, 'all'][0]} is {'missing' if missing else 'not as written'}"
    return None

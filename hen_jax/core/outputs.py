"""Files that a user names for a command to write: one of somebody else is never replaced.

Beside them, the hidden file `.hen_written.json` lists what was written there, by checksum:
`{"sha256": {"good.jsonl": ["5f3a...", "77d0..."]}}`, the newest and the one it replaced. A file
that is still as one of them is ours, and the same command may write it again. Any other is refused.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hen_jax.core.checksums import file_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, write_json
from hen_jax.core.staging import make_durable, make_name_durable, place_for

LEDGER = ".hen_written.json"


@contextmanager
def output_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Yields a temporary path for each; on success they take the places of `paths`.

    All lie in one folder, which is made if need be.

    Raises:
      InputError: one of them exists and is not what we wrote there; nothing is touched then.
    """
    require_ours(*paths)
    with ExitStack() as stack:
        places = [stack.enter_context(place_for(path)) for path in paths]
        staged = [place / path.name for place, path in zip(places, paths, strict=True)]
        yield tuple(staged)
        require_ours(*paths)  # asked again: it may have taken hours
        for one in staged:
            make_durable(one)
        _enter(paths, staged)
        for one, path in zip(staged, paths, strict=True):
            one.replace(path)
        make_name_durable(paths[0])


def require_ours(*paths: Path) -> None:
    """Refuses paths at which there is anything but a file that we wrote and nobody changed.

    Raises:
      InputError: names the path, and what is there.
    """
    if len({path.parent for path in paths}) != 1:
        raise ValueError("the files of one command lie in one folder")
    folder = paths[0].parent
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder, or a name that is free")
    written = _ledger(folder)
    for path in paths:
        if not os.path.lexists(path):
            continue
        what = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a file"
        if what != "a file":
            raise InputError(f"{path} is {what}; give another name, or move it away")
        if file_sha256(path) not in written.get(path.name, []):
            raise InputError(
                f"{path} exists and is not what hen_jax wrote there; give another name, or move "
                "it away"
            )


def require_no_link(folder: Path) -> None:
    """Refuses a folder for outputs that is only a link to one. Raises `InputError`."""
    if folder.is_symlink():
        raise InputError(f"{folder} is a link; give the folder itself, or another name")


def _enter(paths: Sequence[Path], staged: Sequence[Path]) -> None:
    """Lists the new files before they are there: a kill in between leaves none that is unknown."""
    folder = paths[0].parent
    written = _ledger(folder)
    for one, path in zip(staged, paths, strict=True):
        there = [file_sha256(path)] if path.exists() else []
        written[path.name] = [file_sha256(one), *there]
    write_json(folder / LEDGER, {"sha256": written})


def _ledger(folder: Path) -> dict[str, list[str]]:
    """Checksums by name of what was written in a folder; none where the list cannot be read."""
    if not (folder / LEDGER).is_file():
        return {}
    try:
        found: Any = read_json(folder / LEDGER)["sha256"]
        return {str(name): list(map(str, digests)) for name, digests in found.items()}
    except (InputError, KeyError, TypeError, AttributeError):
        return {}

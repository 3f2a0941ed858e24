"""The files of a data folder: those in it, and never one that something in it points to.

A folder that `datasets` saved lists its Arrow files in `state.json`; one from a hub may list data
files at the head of its README. Both lists are followed as far as they stay inside. A link, an
absolute path, `..` or a URL that leads out is refused: whoever wrote the folder must not choose
which other files of this machine a run reads.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.links import real_path

SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx")
"""Files that hold rows, by suffix in lower case; text files may be gzipped."""

_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that describe a set and hold no row of it."""


def data_files(folder: Path) -> list[Path]:
    """The files whose rows are the folder's, in the order of their names.

    Raises:
      InputError: no such file, or one that lies outside of the folder.
    """
    if (folder / "dataset_dict.json").exists():
        parts = _listed(folder / "dataset_dict.json", "splits")
        found = [file for part in parts for file in _saved(_inside(folder, part))]
    elif (folder / "state.json").exists():
        found = _saved(folder)
    else:
        patterns = _patterns(folder)
        found = sorted(_walk(folder)) if patterns is None else list(_matching(folder, patterns))
    if not found:
        raise InputError(f"{folder}: no data file in this folder; allowed: {', '.join(SUFFIXES)}")
    for file in found:
        _require_inside(folder, file)
    return found


def suffix_of(path: Path) -> str:
    """The suffix that says what a file is: `.csv` of `A.CSV.gz`."""
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if suffix == ".gz" else suffix


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in folders:
            _require_inside(folder, Path(place, name))
        yield from (Path(place, name) for name in names if _holds_rows(Path(name)))


def _holds_rows(file: Path) -> bool:
    hidden = file.name.startswith((".", "_"))
    return not hidden and file.name not in _ABOUT and suffix_of(file) in SUFFIXES


def _saved(folder: Path) -> list[Path]:
    state = folder / "state.json"
    files = _listed(state, "_data_files")
    return [_inside(folder, one["filename"] if isinstance(one, dict) else one) for one in files]


def _listed(path: Path, key: str) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[key]
        if not isinstance(found, list):
            raise TypeError
        return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: no list {key!r}; save the set again") from None


def _inside(folder: Path, name: Any) -> Path:
    """A file or folder that a list names."""
    outside = (
        not isinstance(name, str)
        or "://" in name
        or name.startswith(("/", "\\", "~"))
        or name[1:2] == ":"
        or ".." in Path(name.replace("\\", "/")).parts
    )
    if outside:
        raise InputError(
            f"{folder}: lists {name!r}, which is not in this folder; a data folder reads only its "
            "own files: move it there, or name it as a source of its own"
        )
    return folder / name


def _require_inside(folder: Path, file: Path) -> None:
    if not real_path(file).is_relative_to(real_path(folder)):
        raise InputError(
            f"{file}: a link out of the data folder; copy the file there, or name it as a source "
            "of its own"
        )


def _matching(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    for pattern in patterns:
        _inside(folder, pattern)
        found = sorted(one for one in folder.glob(pattern) if _holds_rows(one))
        if not found:
            raise InputError(f"{folder}: its README lists {pattern!r}, and no file there is so")
        yield from found


def _patterns(folder: Path) -> list[str] | None:
    """The `data_files` at the head of the README; None where there are none."""
    from hen_jax.core.yaml_text import parse_yaml  # of folders alone

    readme = folder / "README.md"
    if not readme.is_file():
        return None
    _require_inside(folder, readme)
    parts = readme.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    try:
        head = parse_yaml(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except InputError as error:
        raise InputError(f"{readme}: its head: {error}; mend or remove it") from None
    configs = head.get("configs") if isinstance(head, dict) else None
    if not configs:
        return None
    config = _chosen(readme, configs)
    if "data_files" not in config:
        return None if "data_dir" not in config else [f"{config['data_dir']}/**/*"]
    return list(_flat(config["data_files"]))


def _chosen(readme: Path, configs: Any) -> dict[str, Any]:
    """The only configuration, or the one that is the default."""
    if not isinstance(configs, list) or not all(isinstance(one, dict) for one in configs):
        raise InputError(f"{readme}: configs is no list of objects; mend or remove it")
    chosen = [c for c in configs if c.get("default") or c.get("config_name") == "default"]
    if len(chosen) != 1:
        chosen = configs
    if len(chosen) != 1:
        names = ", ".join(str(one.get("config_name")) for one in configs)
        raise InputError(f"{readme}: several sets ({names}); name the files of one as the source")
    return chosen[0]


def _flat(files: Any) -> Iterator[str]:
    """The patterns in `"x"`, `["x"]`, `{"train": "x"}` or `[{"split": "train", "path": "x"}]`."""
    if isinstance(files, list):
        for one in files:
            yield from _flat(one.get("path") if isinstance(one, dict) else one)
    elif isinstance(files, dict):
        for one in files.values():
            yield from _flat(one)
    else:
        yield files

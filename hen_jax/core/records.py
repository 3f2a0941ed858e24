"""`hen_jax.json`: what a folder of ours is and what its files were when they were written.

    {"kind": "hf_model", ..., "sha256": {"config.json": "5f3a...", ...}, "seal": "9b1c..."}

`sha256` lists every file beside the record; the files are compared with it whenever a folder is
opened. `seal` is the checksum of the record's other fields. A folder without a record is somebody
else's, and there is nothing to compare.

Who changed a file on purpose deletes `hen_jax.json`, or sets `HEN_VERIFY=off` in the environment.
The card, `README.md`, may be edited freely.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hen_jax.core.checksums import files_sha256, text_sha256
from hen_jax.core.errors import InputError, StoppedError
from hen_jax.core.files import RECORD, read_json, write_json
from hen_jax.core.shapes import checked_shape, shown
from hen_jax.core.staging import make_durable, sweep

EDITABLE = ("README.md",)
"""Files of ours that a user may edit: no opening compares them."""

WEIGHTS_SUFFIX = ".safetensors"
"""How the names of large files end; they are compared beside the reading, the others before it."""

VERIFY = "HEN_VERIFY"

Record = dict[str, Any]


def write_record(folder: Path, kind: str, fields: Mapping[str, Any], *, files: bool = True) -> None:
    """Writes the record of `folder`, which is complete but for it.

    Args:
      kind: what the folder is: `hf_model`, `peft_adapter`, `run`, ...
      fields: what else the record says, as JSON.
      files: list the checksums of all files; not of a folder whose files go on changing.
    """
    # As JSON gives it back, so that the seal is over what is read.
    record: Record = json.loads(json.dumps({"kind": kind, **fields}))
    if files:
        paths = files_in(folder)
        with ThreadPoolExecutor(1) as pool:
            flushed = pool.submit(make_durable, folder)  # the disk writes while this hashes
            listed = dict(zip(paths, files_sha256(folder / name for name in paths), strict=True))
            flushed.result()
        record["sha256"] = listed
    write_json(folder / RECORD, record | {"seal": seal(record)})


def read_record(folder: Path) -> Record | None:
    """The record of a folder without its seal; None where there is none.

    Raises:
      InputError: it is no record, or is not as it was written.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    record = read_json(path)
    listed = record.get("sha256", {}) if isinstance(record, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(one, str) for one in listed.values()):
        raise InputError(f"{path} is no record of hen_jax; delete it if it is not needed")
    sealed = record.pop("seal", None)  # there was none before its second version
    if sealed is not None and sealed != seal(record) and _wanted():
        raise InputError(
            f"{path} is not as hen_jax wrote it; it was changed or damaged. Put a copy in its "
            f"place, or set {VERIFY}=off to read it as it is"
        )
    return record


def require_record(folder: Path, kind: str, shape: Mapping[Any, Any] = {}) -> Record:
    """The record of a folder that must be of a kind, and its fields of a shape.

    Raises:
      InputError: it is not, or one without a seal was changed.
    """
    record = read_record(folder)
    if record is None or record.get("kind") != kind:
        raise InputError(f"{folder} holds no {kind} ({said_to_be(record)})")
    checked_shape(record, shape, folder / RECORD)
    return record


def shaped_record(folder: Path, shape: Mapping[Any, Any]) -> Record:
    """The record of a folder that may be anybody's, so far as `shape` names its fields; or none.

    Raises:
      InputError: as `read_record`, or a field of another shape.
    """
    record = read_record(folder) or {}
    checked_shape(record, shape, folder / RECORD)
    return record


def said_to_be(record: Record | None) -> str:
    """What a folder's record says of it, for a message."""
    return (
        f"no {RECORD} in it" if record is None else f"its {RECORD} says {shown(record.get('kind'))}"
    )


def verify(folder: Path) -> None:
    """Compares a folder's small files with its record: config, tokenizer, template and such.

    Raises:
      InputError: a file is missing, or not what was written.
    """
    names = [name for name in _listed(folder) if not name.endswith(WEIGHTS_SUFFIX)]
    _compare(folder, names)


@contextmanager
def verified(folder: Path, part: int = 0, parts: int = 1) -> Iterator[Callable[[], None]]:
    """Compares all files of a folder with its record, the weights while the body reads them.

    Yields what waits for the comparison to end, for a body that must know before it ends itself.
    Of `parts` processes each looks at every `parts`-th weight file, from its `part` on.

    Raises:
      InputError: as `verify`, before the body for small files, after it for weights; whatever else
        damaged weights make the body raise.
    """
    verify(folder)
    heavy = [name for name in _listed(folder) if name.endswith(WEIGHTS_SUFFIX)][part::parts]
    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        compared = pool.submit(_compare, folder, heavy, cancelled)
        try:
            yield compared.result
        except (StoppedError, KeyboardInterrupt):
            cancelled.set()
            raise
        except Exception:
            compared.result()
            raise
        compared.result()


def changed_files(
    folder: Path, record: Record, names: Iterable[str], cancelled: threading.Event | None = None
) -> list[str]:
    """Which of the files are not as the record says; one that is missing counts as unchanged."""
    present = [name for name in names if (folder / name).is_file()]
    found = files_sha256((folder / name for name in present), cancelled)
    listed = record.get("sha256", {})
    return [name for name, digest in zip(present, found, strict=True) if listed.get(name) != digest]


def files_in(folder: Path) -> list[str]:
    """The files of a folder by their path in it, the record left out."""
    every = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                   if not path.is_dir() or path.is_symlink())  # fmt: skip
    return [name for name in every if name != RECORD]


def _listed(folder: Path) -> list[str]:
    if not folder.exists():
        sweep(folder.parent)  # a kill may have set it aside
    record = read_record(folder) if _wanted() else None
    names = sorted(record.get("sha256", {})) if record else []
    return [name for name in names if name not in EDITABLE]


def _compare(folder: Path, names: list[str], cancelled: threading.Event | None = None) -> None:
    if not names:
        return
    record = read_record(folder) or {}
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; {RECORD} lists it: {_REMEDY}")
    for name in changed_files(folder, record, names, cancelled):
        raise InputError(
            f"{folder / name} does not have the SHA-256 that {RECORD} recorded for it; it was "
            f"changed or damaged: {_REMEDY}"
        )


_REMEDY = (
    "copy, import or export it again. If the change was meant, delete that "
    f"{RECORD} or set {VERIFY}=off"
)


def _wanted() -> bool:
    return os.environ.get(VERIFY) != "off"


def seal(record: Mapping[str, Any]) -> str:
    """The checksum of a record's fields, 64 hexadecimal digits; the seal itself is none of them."""
    return text_sha256(json.dumps(record, sort_keys=True))

"""Safetensors on disk: where each tensor lies, reading one at a time, writing in shards."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, write_json
from hen_jax.io.names import require_shape

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
"""Names a weight's dtype may have in a config or on the command line."""

_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_PICKLES = ("pytorch_model*.bin", "consolidated*.pth", "*.pt", "*.pth", "adapter_model.bin")


def dtype_named(name: str) -> np.dtype:
    """`"bfloat16"` -> the numpy dtype. Raises `InputError` for any other name than `DTYPES`'."""
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not supported; use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def locate(folder: Path) -> dict[str, Path]:
    """Which file of `folder` holds each tensor: `{tensor name: path}`.

    Raises:
      InputError: no safetensors, only pickle files, or an index that names a file which is
        missing, lies outside the folder, or does not hold the tensor.
    """
    folder = Path(folder)
    if (folder / SINGLE).is_file():
        return dict.fromkeys(tensor_names(folder / SINGLE), folder / SINGLE)
    if (folder / INDEX).is_file():
        return _located_by_index(folder / INDEX)
    refuse_pickles(folder)
    raise InputError(f"{folder} holds no weights: neither {SINGLE} nor {INDEX}")


def refuse_pickles(folder: Path) -> None:
    """Raises `InputError` if `folder` holds a pickle weight file."""
    for pattern in _PICKLES:
        for path in sorted(folder.glob(pattern)):
            raise InputError(
                f"{path} is a pickle file, which can run code when it is loaded, and is refused; "
                "convert it to safetensors where you trust it: "
                "model.save_pretrained(folder, safe_serialization=True)"
            )


def tensor_names(path: Path) -> list[str]:
    """The tensors that a safetensors file holds. Raises `InputError` if it is damaged."""
    with _opened(path) as file:
        return list(file.keys())


class Reader:
    """Reads single tensors of a folder, keeping one shard's header open at a time."""

    def __init__(self, files: dict[str, Path]):
        self.files = files
        self._path: Path | None = None
        self._file: Any = None

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor `name`, which must have `shape` and a floating dtype.

        Raises:
          InputError: another shape, a quantised or integer dtype, a damaged file.
        """
        path = self.files[name]
        if path != self._path:
            self._file, self._path = _opened(path), path
        try:
            view = self._file.get_slice(name)
            found, stored = tuple(view.get_shape()), view.get_dtype()
        except SafetensorError as error:
            raise InputError(f"{path}: {name} cannot be read ({error})") from None
        if stored not in _STORED:
            raise InputError(
                f"{path}: {name} is stored as {stored}; only {', '.join(_STORED)} weights can be "
                "read, so use an unquantised checkpoint"
            )
        require_shape(found, shape, f"{path}: {name}")
        return self._file.get_tensor(name)


class Written(NamedTuple):
    """What a weight file or a set of shards holds."""

    parameters: int
    bytes: int
    dtype: str  # the widest of them


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, np.ndarray]], max_bytes: int
) -> Written:
    """Writes tensors as `model.safetensors`, or in numbered shards with an index.

    A shard is written as soon as the next tensor would take it above `max_bytes`, so no more than
    that is held in memory.
    """
    shard: dict[str, np.ndarray] = {}
    shards: list[list[str]] = []
    held = parameters = size = 0
    dtypes: set[str] = set()
    for name, tensor in tensors:
        if shard and held + tensor.nbytes > max_bytes:
            shards.append(_flush(folder, len(shards), shard))
            held = 0
        shard[name] = tensor
        held += tensor.nbytes
        size += tensor.nbytes
        parameters += tensor.size
        dtypes.add(tensor.dtype.name)
    shards.append(_flush(folder, len(shards), shard))
    _name_shards(folder, shards, size)
    return Written(parameters, size, next(name for name in DTYPES if name in dtypes))


def _flush(folder: Path, number: int, shard: dict[str, np.ndarray]) -> list[str]:
    save_file(shard, folder / f"shard-{number}", metadata={"format": "pt"})
    written = list(shard)
    shard.clear()
    return written


def _name_shards(folder: Path, shards: list[list[str]], size: int) -> None:
    if len(shards) == 1:
        (folder / "shard-0").replace(folder / SINGLE)
        return
    weight_map = {}
    for number, written in enumerate(shards):
        final = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}").replace(folder / final)
        weight_map |= dict.fromkeys(written, final)
    write_json(
        folder / INDEX,
        {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))},
    )


def _located_by_index(index: Path) -> dict[str, Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no 'weight_map'; download the checkpoint again")
    for file in sorted(set(map(str, weight_map.values()))):
        # Compared as text: in a hub cache the shards are links to files elsewhere, and fine.
        if file in ("", ".", "..") or "/" in file or "\\" in file:
            raise InputError(f"{index} points outside its folder: {file!r}; it is refused")
        if not (index.parent / file).is_file():
            raise InputError(f"{index} names {file}, which is missing; download it again")
        missing = _listed(weight_map, file) - set(tensor_names(index.parent / file))
        if missing:
            raise InputError(f"{index} says that {file} holds {min(missing)}, but it does not")
    return {name: index.parent / file for name, file in weight_map.items()}


def _listed(weight_map: dict[str, str], file: str) -> set[str]:
    return {name for name, named in weight_map.items() if named == file}


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); download or write it again"
        ) from None

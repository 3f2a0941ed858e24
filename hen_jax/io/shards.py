"""Safetensors on disk: where each tensor lies, reading and writing one at a time."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, write_json
from hen_jax.core.rounding import rounded
from hen_jax.io.names import require_shape

_SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
"""Names a weight's dtype may have in a config or on the command line."""

_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_CODES = {name: code for code, name in _STORED.items()}
_PIECE = 2**14  # numbers looked at together: they stay in the processor's cache
_PICKLES = ("pytorch_model*.bin", "consolidated*.pth", "*.pt", "*.pth", "adapter_model.bin")


class Tensor(NamedTuple):
    """A tensor that is read, or made, only when it is asked for; nothing keeps the result."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fill: Callable[[np.ndarray], None]  # writes it into an array of this shape and dtype
    mapped: Callable[[], np.ndarray] | None = None  # itself, as a map of its file

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def cast(self, dtype: str | None) -> "Tensor":
        """The tensor rounded to `dtype`, to nearest even, when asked for; as it is for None.

        It raises `InputError` when it is asked for and a finite number would become infinite.
        """
        target = self.dtype if dtype is None else dtype_named(dtype)
        if target == self.dtype:
            return self

        def fill(out: np.ndarray) -> None:
            out[...] = rounded(self.load(), target, self.name)

        return self._replace(dtype=target, fill=fill, mapped=None)

    def load(self, buffer: np.ndarray | None = None) -> np.ndarray:
        """The tensor, in an array of its own or in the bytes of `buffer`, for as long as they last.

        One buffer for one tensor after the other bounds memory: who still reads from an array is
        then a matter of what has finished, not of what has been freed.
        """
        if buffer is None:
            out = np.empty(self.shape, self.dtype)
        else:
            out = buffer[: self.nbytes].view(self.dtype).reshape(self.shape)
        self.fill(out)
        return out


class TensorEntry(NamedTuple):
    """Where a stored tensor lies."""

    path: Path
    stored: str  # safetensors' name of the dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file


def dtype_named(name: str) -> np.dtype:
    """`"bfloat16"` -> the numpy dtype. Raises `InputError` for any other name than `DTYPES`'."""
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not supported; use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def locate_tensors(folder: Path) -> dict[str, TensorEntry]:
    """Where each tensor of a folder lies, by name.

    Raises:
      InputError: no safetensors, only pickle files, or an index that names a file which is
        missing, lies outside the folder, or does not hold the tensor.
    """
    folder = Path(folder)
    if (folder / _SINGLE).is_file():
        return entries(folder / _SINGLE)
    if (folder / INDEX).is_file():
        return _located_by_index(folder / INDEX)
    refuse_pickles(folder)
    raise InputError(f"{folder} holds no weights: neither {_SINGLE} nor {INDEX}")


def refuse_pickles(folder: Path) -> None:
    """Raises `InputError` if `folder` holds a pickle weight file."""
    for pattern in _PICKLES:
        for path in sorted(folder.glob(pattern)):
            raise InputError(
                f"{path} is a pickle file, which can run code when it is loaded, and is refused; "
                "convert it to safetensors where you trust it: "
                "model.save_pretrained(folder, safe_serialization=True)"
            )


def entries(path: Path) -> dict[str, TensorEntry]:
    """Where the tensors of one safetensors file lie. Raises `InputError` if it is damaged."""
    try:
        # The library checks that the header is sound and the file is whole.
        with safe_open(path, framework="numpy"), path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); download or write it again"
        ) from None
    header.pop("__metadata__", None)
    return {
        name: TensorEntry(path, at["dtype"], tuple(at["shape"]), 8 + length + at["data_offsets"][0])
        for name, at in header.items()
    }


def stored_tensor(name: str, entry: TensorEntry, shape: tuple[int, ...]) -> Tensor:
    """The tensor at `entry`, which must have `shape` and a floating dtype.

    Raises:
      InputError: another shape, or a quantised or integer dtype.
    """
    if entry.stored not in _STORED:
        raise InputError(
            f"{entry.path}: {name} is stored as {entry.stored}; only {', '.join(_STORED)} weights "
            "can be read, so use an unquantised checkpoint"
        )
    require_shape(entry.shape, shape, f"{entry.path}: {name}")
    dtype = DTYPES[_STORED[entry.stored]]
    return Tensor(name, entry.shape, dtype, partial(_read, entry), partial(_map, entry, dtype))


class Written(NamedTuple):
    """What a weight file or a set of shards holds."""

    parameters: int
    bytes: int
    dtype: str  # the widest of them


def write_shards(folder: Path, tensors: Sequence[Tensor], max_bytes: int) -> Written:
    """Writes tensors as `model.safetensors`, or in numbered shards with an index.

    Each is asked for when its turn comes: one is in memory at a time.
    """
    shards: list[list[Tensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(one.nbytes for one in shards[-1]) + tensor.nbytes > max_bytes:
            shards.append([])
        shards[-1].append(tensor)
    written = _written(tensors)
    if len(shards) == 1:
        write_file(folder / _SINGLE, shards[0])
    else:
        names = [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
        for name, shard in zip(names, shards, strict=True):
            write_file(folder / name, shard)
        held = zip(names, shards, strict=True)
        places = {tensor.name: name for name, shard in held for tensor in shard}
        write_json(
            folder / INDEX,
            {"metadata": {"total_size": written.bytes}, "weight_map": dict(sorted(places.items()))},
        )
    return written


def write_file(path: Path, tensors: Sequence[Tensor]) -> Written:
    """One safetensors file; wide dtypes come first, so that every tensor is aligned.

    Raises:
      InputError: a tensor holds a number that is not finite.
    """
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": _CODES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.nbytes],
        }
        start += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        buffer = buffer_for(tensors)
        for tensor in ordered:
            require_finite(tensor.load(buffer), tensor.name)
            file.write(buffer[: tensor.nbytes].data)
    return _written(tensors)


def _written(tensors: Sequence[Tensor]) -> Written:
    dtypes = {tensor.dtype.name for tensor in tensors}
    return Written(
        sum(tensor.nbytes // tensor.dtype.itemsize for tensor in tensors),
        sum(tensor.nbytes for tensor in tensors),
        next(name for name in DTYPES if name in dtypes),
    )


def buffer_for(tensors: Sequence[Tensor]) -> np.ndarray:
    """Bytes enough for any of the tensors."""
    return np.empty(max((tensor.nbytes for tensor in tensors), default=0), np.uint8)


def require_finite(array: np.ndarray, name: str) -> None:
    """Refuses a tensor that holds NaN or an infinity. Raises `InputError` with its name."""
    # The exponent's bits are all set; looked at as integers, as narrow floats are slow in numpy.
    bits = array.reshape(-1).view(f"u{array.dtype.itemsize}")
    limit = np.array(np.inf, array.dtype).view(bits.dtype)
    for start in range(0, bits.size, _PIECE):
        found = (bits[start : start + _PIECE] & _magnitude(bits.dtype)) >= limit
        if found.any():
            place = np.unravel_index(start + int(found.argmax()), array.shape)
            raise InputError(
                f"{name} holds {array[place]} at {list(map(int, place))}; a model with such a "
                "number says nothing sensible, so it is not written"
            )


def _magnitude(dtype: np.dtype) -> np.generic:
    """All bits but the sign."""
    return dtype.type(np.iinfo(dtype).max >> 1)


def _read(entry: TensorEntry, out: np.ndarray) -> None:
    target, done = out.reshape(-1).view(np.uint8), 0
    with entry.path.open("rb", buffering=0) as file:
        file.seek(entry.offset)
        while done < target.size:
            read = file.readinto(target[done:].data)
            if not read:
                raise InputError(f"{entry.path} ended while it was read; was it replaced?")
            done += read


def _map(entry: TensorEntry, dtype: np.dtype) -> np.ndarray:
    return np.memmap(entry.path, dtype, "r", entry.offset, entry.shape)


def _located_by_index(index: Path) -> dict[str, TensorEntry]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no 'weight_map'; download the checkpoint again")
    located = {}
    for file in sorted(set(map(str, weight_map.values()))):
        # Compared as text: in a hub cache the shards are links to files elsewhere, and fine.
        if file in ("", ".", "..") or "/" in file or "\\" in file:
            raise InputError(f"{index} points outside its folder: {file!r}; it is refused")
        if not (index.parent / file).is_file():
            raise InputError(f"{index} names {file}, which is missing; download it again")
        held = entries(index.parent / file)
        listed = {name for name, named in weight_map.items() if named == file}
        if listed - set(held):
            lost = min(listed - set(held))
            raise InputError(f"{index} says that {file} holds {lost}, but it does not")
        located |= {name: held[name] for name in listed}
    return located

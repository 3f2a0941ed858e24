"""llama.cpp's GGUF files: opening, single fields, and weights as the float32 values they stand for.

Tensors lie in a file as Hugging Face lays them out, but for two things: llama.cpp rotates
neighbouring pairs in some architectures, so the rows of q and k are interleaved there, and it
multiplies by a norm's scale where Gemma multiplies by 1 + scale.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from hen_jax.core.errors import InputError
from hen_jax.io import gguf_keys, names
from hen_jax.io.shards import Tensor
from hen_jax.models.config import DecoderConfig

_ARCHITECTURES = tuple(dict.fromkeys(names.GGUF_ARCHITECTURES.values()))

_INTERLEAVED = ("llama",)
"""Architectures whose q and k llama.cpp's converter reorders; see `unpermuted`."""


def open_gguf(path: Path) -> GGUFReader:
    """Opens a GGUF file, its tensors mapped from disk.

    Raises:
      InputError: not a whole GGUF file, or of an architecture that is not supported.
    """
    try:
        reader = GGUFReader(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a whole GGUF file ({error}); download it again") from None
    architecture = field(reader, "general.architecture")
    if architecture not in _ARCHITECTURES:
        raise InputError(
            f"{path} holds architecture {architecture!r}; supported: {', '.join(_ARCHITECTURES)}"
        )
    return reader


def field(reader: GGUFReader, key: str) -> Any:
    """The value at `key` as Python numbers, strings and lists; None where the file lacks it.

    Raises:
      InputError: a text that is not UTF-8.
    """
    found = reader.fields.get(key)
    try:
        return None if found is None else found.contents()
    except UnicodeDecodeError:
        raise InputError(f"the GGUF field {key} is not UTF-8; download the file again") from None


def read_gguf_tensors(reader: GGUFReader, config: DecoderConfig) -> list[Tensor]:
    """The weights as Hugging Face tensors in float32, each dequantised when it is asked for.

    Float32 holds every dequantised value exactly.

    Raises:
      InputError: a missing or leftover weight, one of another shape or an unknown quantisation.
    """
    stored = {t.name: t for t in reader.tensors if t.name not in gguf_keys.EXTRA_TENSORS}
    groups = names.fused(config)
    expected = {name for one in groups for name in names.expand(one, one.gguf, config)}
    names.require_names(
        set(stored), expected, "the GGUF file", "its hyperparameters describe another model"
    )
    tensors = []
    for one in groups:
        shape = names.fused_shape(one, config)
        pairs = zip(
            names.expand(one, one.name, config), names.expand(one, one.gguf, config), strict=True
        )
        for name, theirs in pairs:
            source = stored[theirs]
            names.require_shape(tuple(map(int, source.shape[::-1])), shape, theirs)
            fill = partial(_dequantise, source, one, config)
            tensors.append(Tensor(name, shape, np.dtype(np.float32), fill))
    return tensors


def as_stored(array: np.ndarray, tensor: names.Fused, config: DecoderConfig) -> np.ndarray:
    """A Hugging Face tensor, or a matrix of as many rows, as llama.cpp computes with it."""
    heads = _interleaved_heads(tensor, config)
    if heads is not None:
        return permuted(array, heads)
    return array + np.float32(1) if _is_offset(tensor, config) else array


def as_ours(array: np.ndarray, tensor: names.Fused, config: DecoderConfig) -> np.ndarray:
    """The inverse of `as_stored`, but for the rounding of 1 + scale."""
    heads = _interleaved_heads(tensor, config)
    if heads is not None:
        return unpermuted(array, heads)
    return array - np.float32(1) if _is_offset(tensor, config) else array


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's order of the rows of q (`heads` = N) and k (`heads` = K), `[out, in]`.

    llama.cpp rotates neighbouring pairs, we rotate halves; its converter interleaves the halves of
    each head: for one head of width 4, its rows 0 1 2 3 are our rows 0 2 1 3.
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `unpermuted`."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape)


def _interleaved_heads(tensor: names.Fused, config: DecoderConfig) -> int | None:
    """How many heads' rows are interleaved; None where they are not."""
    if gguf_keys.architecture_of(config) not in _INTERLEAVED:
        return None
    heads = {"blocks/attn/q/kernel": config.heads, "blocks/attn/k/kernel": config.kv_heads}
    return heads.get(tensor.rows[0].path)


def _is_offset(tensor: names.Fused, config: DecoderConfig) -> bool:
    return config.unit_offset_norm and tensor.rows[0].path.endswith("/scale")


def _dequantise(
    source: ReaderTensor, tensor: names.Fused, config: DecoderConfig, out: np.ndarray
) -> None:
    try:
        array = dequantize(source.data, source.tensor_type)
    except NotImplementedError:
        kind = source.tensor_type.name
        raise InputError(f"{source.name} is quantised as {kind}, which is not supported") from None
    out[...] = as_ours(array, tensor, config)

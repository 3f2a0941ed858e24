"""llama.cpp's GGUF files: config and weights, dequantised to the float32 values they stand for."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from hen_jax.core.errors import InputError
from hen_jax.io import names
from hen_jax.io.shards import Tensor
from hen_jax.models.config import DecoderConfig, RopeScaling
from hen_jax.models.families import table
from hen_jax.models.rope import frequencies

_FIELDS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
"""GGUF hyperparameter -> Hugging Face config key, for the architectures we read."""

_HEAD_DIMS = ("attention.key_length", "attention.value_length", "rope.dimension_count")

GGUF_ARCHITECTURES = ("llama", "qwen2")

_ROPE_FACTORS = "rope_freqs.weight"
"""What each rope frequency is divided by: all that llama.cpp keeps of a llama3 scaling."""

_SCALINGS = tuple(RopeScaling(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0))
"""The published ones: of Llama 3.1 and 3.3, and of 3.2."""

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
    if architecture not in GGUF_ARCHITECTURES:
        raise InputError(
            f"{path} holds architecture {architecture!r}; "
            f"supported: {', '.join(GGUF_ARCHITECTURES)}"
        )
    return reader


def field(reader: GGUFReader, key: str) -> Any:
    """The value at `key` as Python numbers, strings and lists; None where the file lacks it."""
    found = reader.fields.get(key)
    return None if found is None else found.contents()


def read_gguf_config(reader: GGUFReader) -> DecoderConfig:
    """The decoder's shape, from the file's hyperparameters.

    Raises:
      InputError: a hyperparameter that is not known, or an unsupported value.
    """
    architecture = field(reader, "general.architecture")
    found = {
        key.removeprefix(f"{architecture}."): field(reader, key)
        for key in reader.fields
        if key.startswith(f"{architecture}.")
    }
    unknown = sorted(set(found) - set(_FIELDS) - set(_HEAD_DIMS))
    if unknown:
        raise InputError(
            f"GGUF hyperparameters {', '.join(unknown)} are not supported for {architecture}; "
            "they may change what the model computes, so they are not ignored"
        )
    fields = {_FIELDS[key]: value for key, value in found.items() if key in _FIELDS}
    # llama.cpp stores float32: 1e-05 reads as 9.999999747378752e-06.
    for key in ("rms_norm_eps", "rope_theta"):
        if key in fields:
            fields[key] = float(str(np.float32(fields[key])))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if "vocab_size" not in fields and "token_embd.weight" in tensors:
        fields["vocab_size"] = int(tensors["token_embd.weight"].shape[-1])
    fields["tie_word_embeddings"] = "output.weight" not in tensors
    head_dims = {found[key] for key in _HEAD_DIMS if key in found}
    if len(head_dims) > 1:
        raise InputError(f"GGUF head widths differ: {sorted(head_dims)}; they must be equal")
    if head_dims:
        fields["head_dim"] = head_dims.pop()
    config = table.from_hf({"model_type": architecture, **fields})
    if _ROPE_FACTORS in tensors:
        scaling = _rope_scaling(tensors[_ROPE_FACTORS], config)
        config = dataclasses.replace(config, rope_scaling=scaling)
    return config


def read_gguf_tensors(reader: GGUFReader, config: DecoderConfig) -> list[Tensor]:
    """The weights as Hugging Face tensors in float32, each dequantised when it is asked for.

    Float32 holds every dequantised value exactly.

    Raises:
      InputError: a missing or leftover weight, one of another shape or an unknown quantisation.
    """
    stored = {t.name: t for t in reader.tensors if t.name != _ROPE_FACTORS}
    rows = names.table(config)
    expected = {name for row in rows for name in names.expand(row, row.gguf, config)}
    names.require_names(
        set(stored), expected, "the GGUF file", "its hyperparameters describe another model"
    )
    tensors = []
    for row in rows:
        shape = names.hf_shape(row, config)
        pairs = zip(
            names.expand(row, row.name, config), names.expand(row, row.gguf, config), strict=True
        )
        for name, theirs in pairs:
            source = stored[theirs]
            names.require_shape(tuple(map(int, source.shape[::-1])), shape, theirs)
            fill = partial(_dequantise, source, row, config)
            tensors.append(Tensor(name, shape, np.dtype(np.float32), fill))
    return tensors


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's order of the rows of q (`heads` = N) and k (`heads` = K), `[out, in]`.

    llama.cpp rotates neighbouring pairs, we rotate halves; its converter interleaves the halves of
    each head: for one head of width 4, its rows 0 1 2 3 are our rows 0 2 1 3.
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _rope_scaling(factors: ReaderTensor, config: DecoderConfig) -> RopeScaling:
    """The published scaling that divides every frequency as `factors` do."""
    plain, given = frequencies(config), np.asarray(factors.data, np.float32)
    for scaling in _SCALINGS:
        divided = plain / frequencies(dataclasses.replace(config, rope_scaling=scaling))
        if given.shape == divided.shape and np.allclose(given, divided, rtol=1e-4):
            return scaling
    raise InputError(
        f"{factors.name} is of no rope scaling that Meta published for Llama 3.1 to 3.3; import "
        "the safetensors, whose config.json names it"
    )


def _dequantise(
    tensor: ReaderTensor, row: names.Weight, config: DecoderConfig, out: np.ndarray
) -> None:
    try:
        array = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
        kind = tensor.tensor_type.name
        raise InputError(f"{tensor.name} is quantised as {kind}, which is not supported") from None
    heads = {"blocks/attn/q/kernel": config.heads, "blocks/attn/k/kernel": config.kv_heads}
    turned = config.family in _INTERLEAVED and row.path in heads
    out[...] = unpermuted(array, heads[row.path]) if turned else array

"""GGUF files for llama.cpp: a whole model, or an adapter for one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFWriter, LlamaFileType
from gguf import GGMLQuantizationType as Kind
from gguf.quants import quantize

from hen_jax.core.errors import InputError
from hen_jax.core.rounding import rounded
from hen_jax.core.types import Tree
from hen_jax.io import gguf_fields, gguf_keys, names, peft_modules
from hen_jax.io.gguf import as_stored
from hen_jax.io.gguf_fields import GgufValue
from hen_jax.io.gguf_vocabulary import Vocabulary
from hen_jax.io.peft_tensors import adapter_tensors
from hen_jax.io.shards import DTYPES, Tensor, require_finite
from hen_jax.models.config import DecoderConfig, LoraConfig

KINDS = {
    "float32": (Kind.F32, LlamaFileType.ALL_F32),
    "float16": (Kind.F16, LlamaFileType.MOSTLY_F16),
    "bfloat16": (Kind.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
"""Our name of a dtype -> how matrices are stored, and what a file of them is called.

q8_0 is eight bits a weight and one float16 factor for each 32 of a row. Norms and biases are
float32 in every file, as llama.cpp expects them.
"""


class _Stored(NamedTuple):
    """One tensor of a file, made when its turn comes."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    make: Callable[[], np.ndarray]  # float32


def write_gguf(
    path: Path,
    config: DecoderConfig,
    tensors: Iterable[Tensor],
    vocabulary: Vocabulary,
    *,
    dtype: str = "float32",
    about: Mapping[str, GgufValue] | None = None,
) -> None:
    """Writes a whole model; one tensor at a time is in memory.

    Args:
      path: of the new file.
      config: of the model.
      tensors: its Hugging Face tensors, all of them.
      vocabulary: its tokenizer; as many tokens as the embedding has rows.
      dtype: one of `KINDS`.
      about: further fields, such as `general.name`.

    Raises:
      InputError: llama.cpp does not know such a model, a row that q8_0 cannot cut into blocks, or
        a number that is not finite or does not fit the dtype.
    """
    kind, file_type = _kind(dtype)
    fields = gguf_fields.gguf_fields(config)
    stored = _model_tensors(config, tensors, kind)
    writer = GGUFWriter(None, gguf_keys.architecture_of(config))
    writer.add_type("model")
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    _add(writer, {**(about or {}), **fields})
    vocabulary.add_to(writer)
    _write(writer, path, stored)


def write_gguf_adapter(
    path: Path,
    config: DecoderConfig,
    lora: LoraConfig,
    adapter: Tree,
    *,
    dtype: str = "float32",
    about: Mapping[str, GgufValue] | None = None,
) -> None:
    """Writes an adapter for a GGUF model of shape `config`.

    llama.cpp multiplies a product by alpha over the rank of that tensor, so where a family fuses n
    layers, whose rank is n times as large, n goes into `B`. Without an alpha it would multiply by
    1, whatever the adapter was trained with.

    Raises:
      InputError: as `write_gguf`, or leaves that do not fit `lora` and `config`.
    """
    kind, file_type = _kind(dtype)
    if kind is Kind.Q8_0:
        raise InputError("an adapter is stored as float32, bfloat16 or float16, not as q8_0")
    gguf_fields.require_computable(config)
    theirs = adapter_tensors(config, lora, adapter)
    stored = _adapter_tensors(config, lora, theirs, kind)
    writer = GGUFWriter(None, gguf_keys.architecture_of(config))
    writer.add_type("adapter")
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", lora.scale * lora.rank)
    _add(writer, about or {})
    _write(writer, path, stored)


def _kind(dtype: str) -> tuple[Kind, LlamaFileType]:
    if dtype not in KINDS:
        raise InputError(
            f"dtype {dtype!r} is not supported for GGUF; use one of {', '.join(KINDS)}"
        )
    return KINDS[dtype]


def _model_tensors(config: DecoderConfig, tensors: Iterable[Tensor], kind: Kind) -> list[_Stored]:
    given = {tensor.name: tensor for tensor in tensors}
    stored = [
        _Stored(name, array.shape, Kind.F32, partial(np.asarray, array))
        for name, array in gguf_fields.extra_tensors(config).items()
    ]
    for fused in names.fused(config):
        both = zip(
            names.expand(fused, fused.name, config),
            names.expand(fused, fused.gguf, config),
            strict=True,
        )
        for ours, theirs in both:
            tensor = given.pop(ours)
            wanted = kind if len(tensor.shape) > 1 else Kind.F32
            _require_blocks(theirs, tensor.shape, wanted)
            make = partial(_turned, tensor, fused, config)
            stored.append(_Stored(theirs, tensor.shape, wanted, make))
    assert not given, f"nothing takes {sorted(given)}"
    return stored


def _adapter_tensors(
    config: DecoderConfig, lora: LoraConfig, tensors: Sequence[Tensor], kind: Kind
) -> list[_Stored]:
    given = {tensor.name: tensor for tensor in tensors}
    stored = []
    for fused in names.fused(config):
        both = zip(
            names.expand(fused, fused.name, config),
            names.expand(fused, fused.gguf, config),
            strict=True,
        )
        for ours, theirs in both:
            low, high = (given.get(name) for name in peft_modules.pair_names(ours))
            if low is None or high is None:
                continue
            parts = low.shape[0] // lora.rank
            make = partial(_turned, high, fused, config, parts)
            stored.append(_Stored(f"{theirs}.lora_a", low.shape, kind, partial(_float, low)))
            stored.append(_Stored(f"{theirs}.lora_b", high.shape, kind, make))
    return stored


def _float(tensor: Tensor) -> np.ndarray:
    return tensor.cast("float32").load()


def _turned(
    tensor: Tensor, fused: names.Fused, config: DecoderConfig, factor: int = 1
) -> np.ndarray:
    return as_stored(_float(tensor) * np.float32(factor), fused, config)


def _require_blocks(name: str, shape: tuple[int, ...], kind: Kind) -> None:
    size, _ = GGML_QUANT_SIZES[kind]
    if shape[-1] % size:
        raise InputError(
            f"{name} has rows of {shape[-1]} numbers, which {kind.name} cannot cut into blocks of "
            f"{size}; use --dtype float16"
        )


def _add(writer: GGUFWriter, fields: Mapping[str, GgufValue]) -> None:
    """Adds each field as the type that llama.cpp reads."""
    for key, value in fields.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)


def _write(writer: GGUFWriter, path: Path, stored: Sequence[_Stored]) -> None:
    for one in stored:
        size, bytes_ = GGML_QUANT_SIZES[one.kind]
        count = int(np.prod(one.shape, dtype=np.int64))
        # Of a type other than uint8 the package takes the shape as it is.
        writer.add_tensor_info(
            one.name, one.shape, np.dtype(np.float32), count // size * bytes_, one.kind
        )
    with closing(writer):
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for one in stored:
            writer.write_tensor_data(_packed(one))


def _packed(stored: _Stored) -> np.ndarray:
    """The bytes of a tensor, as integers or floats of any width."""
    array = np.ascontiguousarray(stored.make(), np.float32)
    require_finite(array, stored.name)
    match stored.kind:
        case Kind.F16:
            return rounded(array, DTYPES["float16"], stored.name)
        case Kind.BF16:
            return rounded(array, DTYPES["bfloat16"], stored.name).view(np.uint16)
        case Kind.Q8_0:
            # The largest factor on a block is a float16.
            rounded(np.abs(array).max(keepdims=True) / 127, DTYPES["float16"], stored.name)
            return quantize(array, Kind.Q8_0)
    return array

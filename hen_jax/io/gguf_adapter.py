"""A GGUF adapter read back: the inverse of `gguf_write.write_gguf_adapter`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from gguf import ReaderTensor
from gguf.quants import dequantize

from hen_jax.core.errors import InputError
from hen_jax.core.types import Tree
from hen_jax.io import gguf_keys, names, peft, peft_modules
from hen_jax.io.gguf import as_ours, field, open_gguf
from hen_jax.io.peft_settings import PeftSettings
from hen_jax.models.config import DecoderConfig, LoraConfig


def read_gguf_adapter(path: Path, config: DecoderConfig) -> tuple[LoraConfig, Tree]:
    """The adapter in a GGUF file for a base of shape `config`, in float32.

    llama.cpp's factor on a product is alpha over the rank of its tensor.

    Raises:
      InputError: no adapter, one without an alpha or for another architecture, or tensors that do
        not fit `config`.
    """
    reader = open_gguf(path)
    kinds = [field(reader, key) for key in ("general.type", "adapter.type")]
    alpha = field(reader, "adapter.lora.alpha")
    if kinds != ["adapter", "lora"] or not alpha:
        raise InputError(f"{path} is no LoRA adapter with an alpha ({kinds}, alpha {alpha})")
    architecture = field(reader, "general.architecture")
    if architecture != gguf_keys.architecture_of(config):
        raise InputError(f"{path} is an adapter of a {architecture} model, not of {config.family}")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    found = _by_peft_name(stored, config)
    ranks = {one.module: int(one.tensor.shape[1]) for one in found.values() if not one.is_b}
    settings = PeftSettings(min(ranks.values(), default=1), alpha, False, ranks, {})

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        one = found[name]
        names.require_shape(tuple(map(int, one.tensor.shape[::-1])), shape, one.tensor.name)
        array = dequantize(one.tensor.data, one.tensor.tensor_type)
        return as_ours(array, one.fused, config) if one.is_b else array

    return peft.assemble_adapter(path, set(found), config, settings, read)


class _Part(NamedTuple):
    """The `A` or the `B` of a layer, with the model's tensor that it changes."""

    tensor: ReaderTensor
    fused: names.Fused
    is_b: bool

    @property
    def module(self) -> str:
        """The last part of the linear layer's name, by which settings name it."""
        return self.fused.rows[0].module.rpartition(".")[2]


def _by_peft_name(stored: dict[str, ReaderTensor], config: DecoderConfig) -> dict[str, _Part]:
    """Each stored tensor by PEFT's name for it."""
    found = {}
    for fused in names.fused(config):
        both = zip(
            names.expand(fused, fused.name, config),
            names.expand(fused, fused.gguf, config),
            strict=True,
        )
        for ours, theirs in both:
            for name, end in zip(peft_modules.pair_names(ours), ("lora_a", "lora_b"), strict=True):
                tensor = stored.pop(f"{theirs}.{end}", None)
                if tensor is not None:
                    found[name] = _Part(tensor, fused, end == "lora_b")
    if stored:
        raise InputError(f"a GGUF adapter holds {min(stored)}, which changes no known weight")
    return found

"""The decoder's shape, from the hyperparameters of a GGUF file."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from gguf import GGUFReader

from hen_jax.core.errors import InputError
from hen_jax.io import gguf_keys as keys
from hen_jax.io.gguf import field
from hen_jax.models.config import DecoderConfig, RopeScaling
from hen_jax.models.families import table
from hen_jax.models.families.rope_fields import PARTIAL, scaling_fields
from hen_jax.models.families.window_fields import FULL, SLIDING
from hen_jax.models.rope import frequencies

_PUBLISHED = tuple(RopeScaling(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0))
"""The llama3 scalings of Llama 3.1 and 3.3, and of 3.2."""

_Found = Mapping[str, Any]
"""Hyperparameters by their key without the architecture."""


def read_gguf_config(reader: GGUFReader) -> DecoderConfig:
    """The decoder's shape, from the file's hyperparameters.

    Raises:
      InputError: a hyperparameter that is not known, or an unsupported value.
    """
    architecture = field(reader, "general.architecture")
    found = _hyperparameters(reader, architecture)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    constants = {
        name: np.asarray(tensors[name].data, np.float32)
        for name in keys.EXTRA_TENSORS
        if name in tensors
    }
    fields = {keys.FIELDS[key]: value for key, value in found.items() if key in keys.FIELDS}
    if "vocab_size" not in fields and "token_embd.weight" in tensors:
        fields["vocab_size"] = int(tensors["token_embd.weight"].shape[-1])
    fields["tie_word_embeddings"] = "output.weight" not in tensors
    fields |= _head_fields(architecture, found, fields)
    fields |= _rope_fields(found, constants)
    if architecture in keys.WINDOWED:
        fields |= _gemma_fields(architecture, found, fields)
    fields["model_type"] = keys.family_of(architecture)
    if keys.ROPE_FACTORS not in constants:
        return table.from_hf(fields)
    said = field(reader, keys.ROPE_SCALING)
    return _with_scaling(fields, constants[keys.ROPE_FACTORS], said)


def _hyperparameters(reader: GGUFReader, architecture: str) -> dict[str, Any]:
    """By key without the architecture; floats as the decimals that were meant."""
    found = {
        key.removeprefix(f"{architecture}."): field(reader, key)
        for key in reader.fields
        if key.startswith(f"{architecture}.")
    }
    known = {*keys.FIELDS, *keys.HEAD_WIDTHS, keys.ROTATED, *keys.KNOWN[architecture]}
    unknown = sorted(set(found) - known)
    if unknown:
        raise InputError(
            f"GGUF hyperparameters {', '.join(unknown)} are not supported for {architecture}; "
            "they may change what the model computes, so they are not ignored"
        )
    return {key: keys.single_value(value) for key, value in found.items()}


def _head_fields(architecture: str, found: _Found, fields: _Found) -> dict[str, Any]:
    widths = {found[key] for key in keys.HEAD_WIDTHS if key in found}
    rotated = found.get(keys.ROTATED)
    if rotated is not None and architecture != "phi3":
        widths.add(rotated)
    if len(widths) > 1:
        raise InputError(f"GGUF head widths differ: {sorted(widths)}; they must be equal")
    if widths:
        width = widths.pop()
    elif {"hidden_size", "num_attention_heads"} <= set(fields):
        width = fields["hidden_size"] // fields["num_attention_heads"]
    else:
        return {}  # what is missing is named with the sizes
    partial = rotated is not None and rotated != width
    return {"head_dim": width, **({PARTIAL: rotated / width} if partial else {})}


def _rope_fields(found: _Found, constants: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The scaling of a config.json; that of `ROPE_FACTORS` is found from its effect."""
    kind = found.get(keys.SCALING, "linear" if keys.FACTOR in found else "none")
    if kind == "linear":
        return {"rope_scaling": {"rope_type": "linear", "factor": found.get(keys.FACTOR)}}
    if kind != "none":
        raise InputError(f"GGUF rope scaling {kind!r} is not supported; supported: linear, none")
    if not set(keys.LONG_FACTORS.values()) <= set(constants):
        return {}
    factors = {key: constants[name].tolist() for key, name in keys.LONG_FACTORS.items()}
    return {
        "original_max_position_embeddings": found.get(keys.LONG_LENGTH),
        "rope_scaling": {
            "rope_type": "longrope",
            **{
                key: [keys.single_value(value) for value in values]
                for key, values in factors.items()
            },
            "attention_factor": found.get(keys.LONG_FACTOR),
        },
    }


def _gemma_fields(architecture: str, found: _Found, fields: _Found) -> dict[str, Any]:
    layers = int(fields["num_hidden_layers"])
    period = int(found.get(keys.PATTERN, keys.WINDOWED[architecture]))
    types = [FULL if period and (n + 1) % period == 0 else SLIDING for n in range(layers)]
    scalar = fields["head_dim"]
    if layers == keys.LARGEST[architecture]:
        scalar = fields["hidden_size"] // fields["num_attention_heads"]
    gemma = {
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": types,
        "query_pre_attn_scalar": scalar,
        "sliding_window": found.get(keys.WINDOW, 4096),
    }
    caps = {key: found[key] for key in (keys.SCORE_CAP, keys.FINAL_CAP) if key in found}
    local = found.get(keys.LOCAL_BASE)
    if architecture == "gemma3":
        return {**gemma, **caps, "rope_local_base_freq": local or 10000.0}
    if local not in (None, fields.get("rope_theta")):
        raise InputError("GGUF rope bases of gemma2 differ; one for all layers is supported")
    return gemma | caps


def _with_scaling(fields: _Found, given: np.ndarray, said: str | None) -> DecoderConfig:
    """The config with the scaling that divides every frequency as `given` does.

    It is the one that the file says in words, or one that was published.
    """
    plain = table.from_hf(fields)
    words = [json.loads(said)] if said else list(map(scaling_fields, _PUBLISHED))
    for scaling in words:
        config = table.from_hf({**fields, "rope_scaling": scaling})
        divided = np.asarray(frequencies(plain) / frequencies(config))
        if given.shape == divided.shape and np.allclose(given, divided, rtol=1e-4):
            return config
    raise InputError(
        f"{keys.ROPE_FACTORS} is of no rope scaling that Meta published for Llama 3.1 to 3.3; "
        "import the safetensors, whose config.json names it"
    )

"""Llama 2, 3, 3.1, 3.2 and look-alikes (SmolLM2, TinyLlama): `config.json` <-> `DecoderConfig`."""

from collections.abc import Mapping
from typing import Any

from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import hf_fields, rope_fields

_READ = hf_fields.SIZE_KEYS | rope_fields.KEYS

_FIXED: dict[str, tuple[Any, ...]] = {
    "architectures": hf_fields.architectures("Llama"),
    "attention_bias": (False, None),
    "attention_dropout": (0.0, None),
    "hidden_act": ("silu",),
    "mlp_bias": (False, None),
    "model_type": ("llama",),
    "pretraining_tp": (1, None),
    "quantization_config": (None,),
    "rope_interleaved": (False, None),
}


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Reads a Llama `config.json`; absent keys take the defaults of transformers' `LlamaConfig`.

    Raises:
      InputError: an unknown key, an unsupported value, or sizes that do not fit together.
    """
    hf_fields.refuse_unknown(config, _READ, _FIXED)
    rope = rope_fields.read_rope(config)
    sizes = hf_fields.sizes(config, max_length=2048, norm_eps=1e-6, tied=False)
    return DecoderConfig(family="llama", **sizes, rope_theta=rope.theta, rope_scaling=rope.scaling)


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` fields that `from_hf` reads back as `config`."""
    return {
        "architectures": hf_fields.architecture("Llama", config),
        "model_type": "llama",
        "attention_bias": False,
        "hidden_act": "silu",
        "mlp_bias": False,
        **hf_fields.size_fields(config),
        **rope_fields.write(rope_fields.Rope(config.rope_theta, config.rope_scaling)),
    }

"""Mistral: Llama with a sliding window on every layer, or on none."""

from collections.abc import Mapping
from typing import Any

from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import hf_fields, rope_fields, window_fields

_READ = hf_fields.SIZE_KEYS | rope_fields.KEYS | {"sliding_window"}

_FIXED: dict[str, tuple[Any, ...]] = {
    "architectures": hf_fields.architectures("Mistral"),
    "attention_dropout": (0.0, None),
    "hidden_act": ("silu",),
    "model_type": ("mistral",),
    "quantization_config": (None,),
}


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Reads a Mistral `config.json`; absent keys take the defaults of `MistralConfig`.

    Raises:
      InputError: an unknown key, an unsupported value, or sizes that do not fit together.
    """
    hf_fields.refuse_unknown(config, _READ, _FIXED)
    rope = rope_fields.read_rope(config)
    sizes = hf_fields.sizes(config, max_length=131072, norm_eps=1e-6, tied=False, kv_heads=8)
    return DecoderConfig(
        family="mistral",
        **sizes,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        window=window_fields.width(config, default=4096),
    )


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` fields that `from_hf` reads back as `config`."""
    return {
        "architectures": hf_fields.architecture("Mistral", config),
        "model_type": "mistral",
        "hidden_act": "silu",
        "sliding_window": config.window,
        **hf_fields.size_fields(config),
        **rope_fields.write(rope_fields.Rope(config.rope_theta, config.rope_scaling)),
    }

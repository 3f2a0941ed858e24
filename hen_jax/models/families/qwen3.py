"""Qwen3 (dense): Llama with an RMSNorm over each head of q and k."""

from collections.abc import Mapping
from typing import Any

from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import hf_fields, qwen2, rope_fields

_FIXED: dict[str, tuple[Any, ...]] = {
    "architectures": hf_fields.architectures("Qwen3"),
    "attention_bias": (False, None),
    "attention_dropout": (0.0, None),
    "hidden_act": ("silu",),
    "model_type": ("qwen3",),
    "quantization_config": (None,),
}


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Reads a Qwen3 `config.json`; absent keys take the defaults of `Qwen3Config`.

    Raises:
      InputError: an unknown key, an unsupported value, or sizes that do not fit together.
    """
    hf_fields.refuse_unknown(config, qwen2.READ, _FIXED)
    rope = rope_fields.read_rope(config)
    sizes = hf_fields.sizes(
        config, max_length=32768, norm_eps=1e-6, tied=False, kv_heads=32, head_dim=128
    )
    return DecoderConfig(
        family="qwen3",
        **sizes,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        qk_norm=True,
        **qwen2.windows(config)._asdict(),
    )


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` fields that `from_hf` reads back as `config`."""
    return {
        "architectures": hf_fields.architecture("Qwen3", config),
        "model_type": "qwen3",
        "attention_bias": False,
        "hidden_act": "silu",
        **hf_fields.size_fields(config),
        **rope_fields.write(rope_fields.Rope(config.rope_theta, config.rope_scaling)),
        **qwen2.written_windows(config),
    }

"""Qwen2 and Qwen2.5: Llama with biases on q, k and v."""

from collections.abc import Mapping
from typing import Any

from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import hf_fields, rope_fields, window_fields

READ = (
    hf_fields.SIZE_KEYS
    | rope_fields.KEYS
    | {"layer_types", "max_window_layers", "sliding_window", "use_sliding_window"}
)

_FIXED: dict[str, tuple[Any, ...]] = {
    "architectures": hf_fields.architectures("Qwen2"),
    "attention_dropout": (0.0, None),
    "hidden_act": ("silu",),
    "model_type": ("qwen2",),
    "quantization_config": (None,),
    "use_mrope": (False, None),
}


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Reads a Qwen2 `config.json`; absent keys take the defaults of `Qwen2Config`.

    Raises:
      InputError: an unknown key, an unsupported value, or sizes that do not fit together.
    """
    hf_fields.refuse_unknown(config, READ, _FIXED)
    rope = rope_fields.read_rope(config)
    sizes = hf_fields.sizes(config, max_length=32768, norm_eps=1e-6, tied=False, kv_heads=32)
    return DecoderConfig(
        family="qwen2",
        **sizes,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        qkv_bias=True,
        **windows(config)._asdict(),
    )


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` fields that `from_hf` reads back as `config`."""
    return {
        "architectures": hf_fields.architecture("Qwen2", config),
        "model_type": "qwen2",
        "hidden_act": "silu",
        **hf_fields.size_fields(config),
        **rope_fields.write(rope_fields.Rope(config.rope_theta, config.rope_scaling)),
        **written_windows(config),
    }


def windows(config: Mapping[str, Any]) -> window_fields.Window:
    """The first `max_window_layers` layers see everything, and all do without the switch."""
    full = hf_fields.count_field(config, "max_window_layers", default=28)
    used = hf_fields.boolean(config, "use_sliding_window", default=False)
    window = window_fields.width(config, default=4096) if used else None
    return window_fields.read_windows(config, window, lambda layer: layer < full)


def written_windows(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `windows`."""
    seen = config.windows
    return {
        "layer_types": window_fields.layer_types(config),
        "max_window_layers": next((i for i, w in enumerate(seen) if w is not None), len(seen)),
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
    }

"""Gemma 2: norms before and after, soft caps, a scaled embedding, a window on every other layer."""

from collections.abc import Mapping
from typing import Any

from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import hf_fields, rope_fields, window_fields

_READ = (
    hf_fields.SIZE_KEYS
    | rope_fields.KEYS
    | {
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "layer_types",
        "query_pre_attn_scalar",
        "sliding_window",
    }
)

FIXED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "attention_dropout": (0.0, None),
    "cache_implementation": ("hybrid", None),
    "hidden_act": ("gelu_pytorch_tanh", None),  # an older spelling that transformers ignores
    "hidden_activation": ("gelu_pytorch_tanh",),
    "quantization_config": (None,),
    "use_bidirectional_attention": (False, None),
}

_FIXED = FIXED | {
    "architectures": hf_fields.architectures("Gemma2"),
    "model_type": ("gemma2",),
}


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Reads a Gemma 2 `config.json`; absent keys take the defaults of `Gemma2Config`.

    Raises:
      InputError: an unknown key, an unsupported value, or sizes that do not fit together.
    """
    hf_fields.refuse_unknown(config, _READ, _FIXED)
    rope = rope_fields.read_rope(config)
    window = window_fields.width(config, default=4096)
    return DecoderConfig(
        family="gemma2",
        **gemma_sizes(config, max_length=8192),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        **window_fields.read_windows(config, window, lambda layer: layer % 2 == 1)._asdict(),
        attention_softcap=hf_fields.optional(config, "attn_logit_softcapping", 50.0),
        final_softcap=hf_fields.optional(config, "final_logit_softcapping", 30.0),
    )


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` fields that `from_hf` reads back as `config`."""
    return {
        "architectures": hf_fields.architecture("Gemma2", config),
        "model_type": "gemma2",
        **gemma_size_fields(config),
        **rope_fields.write(rope_fields.Rope(config.rope_theta, config.rope_scaling)),
        "attn_logit_softcapping": config.attention_softcap,
    }


def gemma_sizes(config: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """What Gemma 2 and 3 have in common."""
    shared = hf_fields.sizes(
        config, max_length=max_length, norm_eps=1e-6, tied=True, kv_heads=4, head_dim=256
    )
    return shared | {
        "activation": "gelu_tanh",
        "attention_scalar": hf_fields.number(config, "query_pre_attn_scalar", 256.0),
        "scaled_embedding": True,
        "unit_offset_norm": True,
        "post_norms": True,
    }


def gemma_size_fields(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `gemma_sizes`, with the windows."""
    return {
        "attention_bias": False,
        "final_logit_softcapping": config.final_softcap,
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": window_fields.layer_types(config),
        # transformers takes no fraction here, and what it cannot say is refused by the table.
        "query_pre_attn_scalar": int(config.attention_scalar or config.head_dim),
        # transformers asks for a width even where no layer has a window.
        "sliding_window": config.window or config.max_length,
        **hf_fields.size_fields(config),
    }

"""Llama 2, 3, 3.1, 3.2 and look-alikes (SmolLM2, TinyLlama): `config.json` <-> `DecoderConfig`."""

from collections.abc import Mapping
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import hf_fields

ARCHITECTURE = "LlamaForCausalLM"

_READ = hf_fields.ROPE_KEYS | {
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "tie_word_embeddings",
    "vocab_size",
}

_FIXED: dict[str, tuple[Any, ...]] = {
    "architectures": ([ARCHITECTURE], None),
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
    width = hf_fields.integer(config, "hidden_size")
    heads = hf_fields.integer(config, "num_attention_heads")
    kv_heads = hf_fields.integer(config, "num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise InputError(
            f"config key 'num_attention_heads' ({heads}) must be a multiple of "
            f"'num_key_value_heads' ({kv_heads})"
        )
    head_dim = hf_fields.integer(config, "head_dim", default=width // heads)
    if head_dim % 2:
        raise InputError(f"config key 'head_dim' is {head_dim}; rope needs an even head width")
    theta, scaling = hf_fields.rope(config)
    return DecoderConfig(
        family="llama",
        vocab_size=hf_fields.integer(config, "vocab_size"),
        width=width,
        layers=hf_fields.integer(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_width=hf_fields.integer(config, "intermediate_size"),
        max_length=hf_fields.integer(config, "max_position_embeddings", default=2048),
        norm_eps=hf_fields.number(config, "rms_norm_eps", default=1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        activation="silu",
        tied_head=hf_fields.boolean(config, "tie_word_embeddings", default=False),
    )


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` fields that `from_hf` reads back as `config`."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": config.head_dim,
        "hidden_act": config.activation,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_length,
        "mlp_bias": False,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        **hf_fields.rope_fields(config.rope_theta, config.rope_scaling),
        "tie_word_embeddings": config.tied_head,
        "vocab_size": config.vocab_size,
    }

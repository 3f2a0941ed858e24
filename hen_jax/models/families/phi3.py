"""Phi-3, Phi-3.5 and Phi-4 mini: Llama with longrope and, in the later ones, partly rotated heads.

Their checkpoints fuse q, k, v and gate, up; `io.names` takes them apart, so that here they are
Llama's layers.
"""

from collections.abc import Mapping
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.models.config import DecoderConfig, LongRope
from hen_jax.models.families import hf_fields, rope_fields, window_fields

_READ = (
    hf_fields.SIZE_KEYS
    | rope_fields.KEYS
    | {"original_max_position_embeddings", rope_fields.PARTIAL, "sliding_window"}
)

_FIXED: dict[str, tuple[Any, ...]] = {
    "architectures": hf_fields.architectures("Phi3"),
    "attention_bias": (False, None),
    "attention_dropout": (0.0, None),
    "embd_pdrop": (0.0, None),
    "full_attn_mod": (1, None),
    "hidden_act": ("silu",),
    "interpolate_factor": (1, None),
    "lm_head_bias": (False, None),
    "mlp_bias": (False, None),
    "model_type": ("phi3",),
    "quantization_config": (None,),
    "resid_pdrop": (0.0, None),
}


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Reads a Phi-3 `config.json`; absent keys take the defaults of `Phi3Config`.

    Raises:
      InputError: an unknown key, an unsupported value, or sizes that do not fit together.
    """
    hf_fields.refuse_unknown(config, _READ, _FIXED)
    rope = rope_fields.read_rope(config, types=("default", "longrope"))
    sizes = hf_fields.sizes(config, max_length=4096, norm_eps=1e-5, tied=False)
    rotated = int(sizes["head_dim"] * rope.partial)
    if rotated % 2 or not 0 < rotated <= sizes["head_dim"]:
        raise InputError(
            f"config key {rope_fields.PARTIAL!r} is {rope.partial}: of heads {sizes['head_dim']} "
            f"wide it rotates {rotated}, which must be even and no more than all"
        )
    if isinstance(rope.scaling, LongRope):
        for name, factors in (("short", rope.scaling.short), ("long", rope.scaling.long)):
            if len(factors) != rotated // 2:
                raise InputError(
                    f"config key '{name}_factor' holds {len(factors)} numbers; there are "
                    f"{rotated // 2} rotated pairs"
                )
    return DecoderConfig(
        family="phi3",
        **sizes,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        rotary_dim=None if rotated == sizes["head_dim"] else rotated,
        window=window_fields.width(config, default=None),
    )


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` fields that `from_hf` reads back as `config`."""
    partial = (config.rotary_dim or config.head_dim) / config.head_dim
    rope = rope_fields.Rope(config.rope_theta, config.rope_scaling, partial)
    fields = {
        "architectures": hf_fields.architecture("Phi3", config),
        "model_type": "phi3",
        "hidden_act": "silu",
        # Left out it would be 32000, which need not be a token.
        "pad_token_id": None,
        "sliding_window": config.window,
        **hf_fields.size_fields(config),
        **rope_fields.write(rope),
    }
    if isinstance(config.rope_scaling, LongRope):
        fields["original_max_position_embeddings"] = config.rope_scaling.original_length
    return fields

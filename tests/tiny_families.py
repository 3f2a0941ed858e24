"""A tiny model of every family, with its windows, caps and lengths small enough to be crossed."""

import dataclasses

import numpy as np
from tiny_model import CONFIG

from hen_jax.core.trees import unflatten
from hen_jax.io import names
from hen_jax.models.config import DecoderConfig, LinearScaling, LongRope, LoraConfig, RopeScaling

_LLAMA = dataclasses.replace(
    CONFIG,
    vocab_size=96,
    width=32,
    layers=3,
    head_dim=8,
    mlp_width=48,
    max_length=64,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16),
    tied_head=False,
)
_PLAIN = dataclasses.replace(_LLAMA, rope_scaling=None)
_GEMMA2 = dataclasses.replace(
    _PLAIN,
    family="gemma2",
    tied_head=True,
    head_dim=12,
    activation="gelu_tanh",
    window=5,
    global_layers=(1,),
    attention_scalar=20.0,
    attention_softcap=3.0,
    final_softcap=4.0,
    scaled_embedding=True,
    unit_offset_norm=True,
    post_norms=True,
)
_LONG = LongRope((1.0, 1.1, 1.3, 1.5), (1.0, 2.0, 4.0, 7.0), 16, 1.19)
_PHI3 = dataclasses.replace(_PLAIN, family="phi3", rope_scaling=_LONG)

CONFIGS = {
    "llama": _LLAMA,
    "mistral": dataclasses.replace(_PLAIN, family="mistral", head_dim=12, window=6),
    "qwen2": dataclasses.replace(
        _PLAIN, family="qwen2", tied_head=True, qkv_bias=True, window=5, global_layers=(0,)
    ),
    "qwen3": dataclasses.replace(_PLAIN, family="qwen3", head_dim=12, qk_norm=True),
    "phi3": _PHI3,
    "phi3-partly-rotated": dataclasses.replace(
        _PHI3,
        tied_head=True,
        rotary_dim=4,
        window=9,
        rope_scaling=dataclasses.replace(_LONG, short=(1.0, 1.2), long=(2.0, 5.0)),
    ),
    "gemma2": _GEMMA2,
    "gemma3": dataclasses.replace(
        _GEMMA2,
        family="gemma3_text",
        attention_softcap=None,
        final_softcap=None,
        qk_norm=True,
        rope_theta=1e6,
        local_rope_theta=1e4,
        rope_scaling=LinearScaling(8.0),
        global_layers=(2,),
    ),
}


def random_leaves(config: DecoderConfig, lora: LoraConfig | None = None, seed: int = 3):
    """`(base, adapter)`: trees of small random float32 leaves."""
    rng = np.random.default_rng(seed)
    leaves = {
        path: (0.2 * rng.standard_normal(shape)).astype(np.float32)
        for path, shape in names.tensor_shapes(config, lora).items()
    }
    adapter = {path: leaf for path, leaf in leaves.items() if "/lora_" in path}
    base = {path: leaf for path, leaf in leaves.items() if path not in adapter}
    return unflatten(base), unflatten(adapter)

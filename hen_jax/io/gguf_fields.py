"""A config as the hyperparameters that llama.cpp reads, or the reason why it cannot compute it."""

import dataclasses
import json

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.io import gguf_keys as keys
from hen_jax.models.config import DecoderConfig, LinearScaling, LongRope, RopeScaling
from hen_jax.models.families.rope_fields import scaling_fields
from hen_jax.models.rope import frequencies

GgufValue = int | float | bool | str
"""What a hyperparameter may be; ints are written as uint32 and floats as float32."""


def gguf_fields(config: DecoderConfig) -> dict[str, GgufValue]:
    """The hyperparameters of a file of `config`, by their whole keys.

    Where llama.cpp has no windows, the context is no longer than the window: up to there it
    computes what we do.

    Raises:
      InputError: llama.cpp has no place for something that `config` says.
    """
    architecture = keys.architecture_of(config)
    require_computable(config)
    fields: dict[str, GgufValue] = {
        **_sizes(config),
        **dict.fromkeys(keys.HEAD_WIDTHS, config.head_dim),
        keys.ROTATED: config.rotary_dim or config.head_dim,
        **_rope(architecture, config),
    }
    if architecture == "phi3":
        fields[keys.WINDOW] = 0  # where it is absent, llama.cpp guesses
    if architecture in keys.WINDOWED:
        fields |= _gemma(config)
    whole = {f"{architecture}.{key}": value for key, value in fields.items()}
    if isinstance(config.rope_scaling, RopeScaling):
        whole[keys.ROPE_SCALING] = json.dumps(scaling_fields(config.rope_scaling))
    return whole


def extra_tensors(config: DecoderConfig) -> dict[str, np.ndarray]:
    """The constants of the rope that a file holds beside the parameters: float32, by name."""
    match config.rope_scaling:
        case RopeScaling():
            plain = frequencies(dataclasses.replace(config, rope_scaling=None))
            return {keys.ROPE_FACTORS: np.asarray(plain / frequencies(config), np.float32)}
        case LongRope(short, long):
            both = {"long_factor": long, "short_factor": short}
            return {keys.LONG_FACTORS[key]: np.asarray(x, np.float32) for key, x in both.items()}
    return {}


def require_computable(config: DecoderConfig) -> None:
    """Refuses what llama.cpp would compute otherwise than we do. Raises `InputError`."""
    architecture = keys.architecture_of(config)
    scaling, scalar = config.rope_scaling, keys.attention_scalar(architecture, config)
    period = _period(config)
    capped = architecture == "gemma2"
    for wrong, what in (
        (config.score_head, "a score head (a reward model)"),
        (isinstance(scaling, RopeScaling) and architecture != "llama", "a llama3 rope scaling"),
        (isinstance(scaling, LongRope) and architecture != "phi3", "longrope"),
        (isinstance(scaling, LinearScaling) and architecture == "phi3", "a linear rope scaling"),
        (
            config.attention_scalar != scalar,
            f"query_pre_attn_scalar {config.attention_scalar} (it divides by the root of {scalar})",
        ),
        (
            architecture in keys.SQUARE and config.heads * config.head_dim != config.width,
            f"{config.heads} heads of {config.head_dim} in a width of {config.width}",
        ),
        (
            architecture in keys.WINDOWED and period is None,
            f"global layers {config.global_layers}: only every n-th layer may be one",
        ),
        (architecture in keys.WINDOWED and not config.tied_head, "an unembedding of its own"),
        (capped != (config.attention_softcap is not None), "that soft cap of scores"),
        (capped != (config.final_softcap is not None), "that soft cap of logits"),
    ):
        if wrong:
            raise InputError(
                f"llama.cpp's {architecture} has no place for {what}; use --format hf instead"
            )


def _sizes(config: DecoderConfig) -> dict[str, GgufValue]:
    ours: dict[str, GgufValue] = {
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": float(config.norm_eps),
        "num_hidden_layers": config.layers,
        "max_position_embeddings": keys.context_length(config),
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "rope_theta": float(config.rope_theta),
        "vocab_size": config.vocab_size,
    }
    return {key: ours[name] for key, name in keys.FIELDS.items()}


def _rope(architecture: str, config: DecoderConfig) -> dict[str, GgufValue]:
    match config.rope_scaling:
        case LinearScaling(factor):
            return {keys.SCALING: "linear", keys.FACTOR: float(factor)}
        case LongRope(_, _, length, factor):
            return {keys.LONG_LENGTH: length, keys.LONG_FACTOR: float(factor)}
    return {keys.LONG_LENGTH: config.max_length} if architecture == "phi3" else {}


def _gemma(config: DecoderConfig) -> dict[str, GgufValue]:
    period = _period(config)
    assert period is not None
    fields: dict[str, GgufValue] = {
        keys.WINDOW: config.window or config.max_length,
        keys.PATTERN: period,
        keys.LOCAL_BASE: float(config.local_rope_theta or config.rope_theta),
    }
    caps = {keys.SCORE_CAP: config.attention_softcap, keys.FINAL_CAP: config.final_softcap}
    return fields | {key: float(cap) for key, cap in caps.items() if cap is not None}


def _period(config: DecoderConfig) -> int | None:
    """Of so many layers the last sees everything: 1 all of them, 0 none; None: it is no period."""
    if config.window is None:
        return 1
    if not config.global_layers:
        return 0
    period = config.global_layers[0] + 1
    every = tuple(range(period - 1, config.layers, period))
    return period if config.global_layers == every else None

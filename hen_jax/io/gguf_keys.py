"""The keys of GGUF hyperparameters, and what llama.cpp knows of each architecture.

llama.cpp takes a value that a file lacks from a table of its own, without a word (a rope base of
10,000, a window of 4,096), so every value is written, and one it has no place for is refused.
"""

import dataclasses
from typing import Any

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.io.names import GGUF_ARCHITECTURES
from hen_jax.models.config import DecoderConfig

FIELDS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
"""GGUF hyperparameter -> Hugging Face config key, of every architecture."""

HEAD_WIDTHS = ("attention.key_length", "attention.value_length")
ROTATED = "rope.dimension_count"
WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
SCORE_CAP, FINAL_CAP = "attn_logit_softcapping", "final_logit_softcapping"
LOCAL_BASE = "rope.freq_base_swa"
SCALING, FACTOR = "rope.scaling.type", "rope.scaling.factor"
LONG_LENGTH, LONG_FACTOR = "rope.scaling.original_context_length", "rope.scaling.attn_factor"

KNOWN: dict[str, tuple[str, ...]] = {
    "llama": (SCALING, FACTOR),
    "qwen2": (SCALING, FACTOR),
    "qwen3": (SCALING, FACTOR),
    "phi3": (WINDOW, LONG_LENGTH, LONG_FACTOR),
    "gemma2": (SCALING, FACTOR, WINDOW, PATTERN, LOCAL_BASE, SCORE_CAP, FINAL_CAP),
    "gemma3": (SCALING, FACTOR, WINDOW, PATTERN, LOCAL_BASE),
}
"""Architecture -> what it may say besides `FIELDS` and the width of a head."""

WINDOWED = {"gemma2": 2, "gemma3": 6}
"""Architectures whose windows llama.cpp keeps to; in all others every layer sees everything. Of so
many layers the last one sees everything, where a file does not say."""

SQUARE = ("qwen2", "phi3")
"""Architectures whose heads, side by side, must be as wide as the model."""

LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, by which llama.cpp knows that scores are scaled by width / heads."""

ROPE_SCALING = "hen_jax.rope_scaling"
"""Where we note a llama3 scaling in words, as llama.cpp keeps only what it divides by."""

ROPE_FACTORS = "rope_freqs.weight"
"""What each rope frequency is divided by: all that llama.cpp keeps of a llama3 scaling."""

LONG_FACTORS = {
    "long_factor": "rope_factors_long.weight",
    "short_factor": "rope_factors_short.weight",
}
"""Key of a longrope scaling -> the tensor that holds it."""

EXTRA_TENSORS = (ROPE_FACTORS, *LONG_FACTORS.values())
"""Tensors that are no parameters: constants of the rope."""

ROLES = {"bos": "bos", "unk": "unknown", "pad": "padding"}
"""transformers' name of a token's role -> llama.cpp's."""

ENDS = ("eos", "eot", "eom")
"""llama.cpp's names of the ends of a text, a turn and a message: where a reply ends."""


def architecture_of(config: DecoderConfig) -> str:
    """llama.cpp's name of the family. Raises `InputError` where it has none."""
    if config.family not in GGUF_ARCHITECTURES:
        raise InputError(
            f"GGUF of the family {config.family!r} is not supported; "
            f"supported: {', '.join(GGUF_ARCHITECTURES)}"
        )
    return GGUF_ARCHITECTURES[config.family]


def family_of(architecture: str) -> str:
    """Our family of an architecture; Mistral is a Llama there."""
    families = {theirs: ours for ours, theirs in reversed(GGUF_ARCHITECTURES.items())}
    return families[architecture]


def context_length(config: DecoderConfig) -> int:
    """How many tokens llama.cpp reads as we do: all, or as far as a window it does not have."""
    if architecture_of(config) in WINDOWED or config.window is None:
        return config.max_length
    return min(config.max_length, config.window)


def attention_scalar(architecture: str, config: DecoderConfig) -> float | None:
    """What llama.cpp divides scores by the root of; None: by that of a head's width."""
    if architecture not in LARGEST:
        return None
    largest = config.layers == LARGEST[architecture]
    return float(config.width // config.heads if largest else config.head_dim)


def as_read(config: DecoderConfig) -> DecoderConfig:
    """What a file of `config` reads as: Mistral is a Llama there, windows that llama.cpp does not
    have are none, and numbers are float32."""
    architecture = architecture_of(config)
    read = dataclasses.replace(
        config, family=family_of(architecture), max_length=context_length(config)
    )
    if architecture not in WINDOWED:
        read = dataclasses.replace(read, window=None, global_layers=())
    return single_value(read)


def single_value(value: Any) -> Any:
    """A number, tuple or record with each float as the shortest decimal of its float32.

    llama.cpp stores float32: 1e-05 reads as 9.999999747378752e-06.
    """
    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, tuple):
        return tuple(map(single_value, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value)]
        return dataclasses.replace(value, **{n: single_value(vars(value)[n]) for n in names})
    return value

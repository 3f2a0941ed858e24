"""Which families there are, and the guard that makes both directions of a config exact."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.shapes import shown
from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import gemma2, gemma3, llama, mistral, phi3, qwen2, qwen3


class ModelFamily(NamedTuple):
    """How one family's `config.json` is read and written."""

    from_hf: Callable[[Mapping[str, Any]], DecoderConfig]
    to_hf: Callable[[DecoderConfig], dict[str, Any]]


FAMILIES = {
    "llama": ModelFamily(llama.from_hf, llama.to_hf),
    "mistral": ModelFamily(mistral.from_hf, mistral.to_hf),
    "qwen2": ModelFamily(qwen2.from_hf, qwen2.to_hf),
    "qwen3": ModelFamily(qwen3.from_hf, qwen3.to_hf),
    "phi3": ModelFamily(phi3.from_hf, phi3.to_hf),
    "gemma2": ModelFamily(gemma2.from_hf, gemma2.to_hf),
    "gemma3_text": ModelFamily(gemma3.from_hf, gemma3.to_hf),
}
"""Hugging Face `model_type` -> family; also the values of `DecoderConfig.family`."""


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Reads a `config.json` dict of any family.

    Raises:
      InputError: an unknown `model_type`, an unknown key, or an unsupported value.
    """
    return _family(config.get("model_type")).from_hf(config)


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` dict of `config`.

    Raises:
      InputError: the family cannot express a field of `config`: writing it would lose something.
    """
    family = _family(config.family)
    written = family.to_hf(config)
    back = dataclasses.asdict(family.from_hf(written))
    lost = [key for key, value in dataclasses.asdict(config).items() if back[key] != value]
    if lost:
        raise InputError(f"a {config.family} config.json cannot express {', '.join(lost)}")
    return written


def _family(name: Any) -> ModelFamily:
    if not isinstance(name, str) or name not in FAMILIES:
        raise InputError(
            f"config key 'model_type' is {shown(name)}; supported families: {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]

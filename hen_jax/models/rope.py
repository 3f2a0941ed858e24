"""Rotary position embeddings (Su et al., 2021), in Hugging Face's rotate-half layout."""

import math

import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.types import Array
from hen_jax.models.config import DecoderConfig, RopeScaling


def rope_angles(config: DecoderConfig, positions: Int[Array, "B T"]) -> Float[Array, "B T P"]:
    """Angles in radians, float32: position times the frequency of each pair of a head."""
    return positions[..., None].astype(jnp.float32) * frequencies(config)


def frequencies(config: DecoderConfig) -> Float[Array, "P"]:
    """Radians per position for each of the `H / 2` pairs, highest first."""
    exponents = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    inverse = 1.0 / config.rope_theta**exponents
    return inverse if config.rope_scaling is None else _llama3(inverse, config.rope_scaling)


def rotate(x: Float[Array, "B T N H"], angles: Float[Array, "B T P"]) -> Float[Array, "B T N H"]:
    """Rotates each pair `(x[h], x[h + H/2])` by its angle; computed in float32."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def _llama3(inverse: Float[Array, "P"], scaling: RopeScaling) -> Float[Array, "P"]:
    wavelength = 2 * math.pi / inverse
    share = (scaling.original_length / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    kept = jnp.clip(share, 0.0, 1.0)  # 0: long wavelength, scaled; 1: short wavelength, kept
    return (1 - kept) * inverse / scaling.factor + kept * inverse

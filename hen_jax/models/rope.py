"""Rotary position embeddings (Su et al., 2021), in Hugging Face's rotate-half layout."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from hen_jax.core.types import Array
from hen_jax.models.config import DecoderConfig, LinearScaling, LongRope, RopeScaling


def rope_angles(
    config: DecoderConfig,
    positions: Int[Array, "B T"],
    lengths: Int[Array, "B T"] | None = None,
    local: bool = False,
) -> Float[Array, "B T P"]:
    """Angles in radians, float32: position times the frequency of each pair of a head.

    `lengths` are those of each token's document; only `LongRope` asks for them. `local` gives the
    angles of layers with a window, where the family has other ones for them.
    """
    scaling = config.rope_scaling
    if local and config.local_rope_theta is not None:
        inverse = _inverse(config, config.local_rope_theta)
    elif isinstance(scaling, LongRope):
        assert lengths is not None, "longrope reads long documents otherwise than short ones"
        inverse = _longrope(_inverse(config, config.rope_theta), scaling, lengths)
    else:
        inverse = frequencies(config)
    return positions[..., None].astype(jnp.float32) * inverse


def frequencies(config: DecoderConfig) -> Float[Array, "P"]:
    """Radians per position for each of the rotated pairs, highest first; of short documents."""
    inverse = _inverse(config, config.rope_theta)
    match config.rope_scaling:
        case None:
            return inverse
        case LinearScaling(factor):
            return inverse / factor
        case LongRope(short):
            return inverse / jnp.asarray(short, jnp.float32)
        case RopeScaling() as scaling:
            return _llama3(inverse, scaling)


def rope_amplitude(config: DecoderConfig) -> float:
    """What cosines and sines are multiplied by: 1, but for longrope."""
    scaling = config.rope_scaling
    return scaling.attention_factor if isinstance(scaling, LongRope) else 1.0


def document_lengths(
    positions: Int[Array, "B T"], segments: Int[Array, "B T"]
) -> Int[Array, "B T"]:
    """At each token how long its document is: positions `0 1 0 1 2` give `2 2 3 3 3`."""
    T = segments.shape[1]
    last = jnp.append(segments[:, 1:] != segments[:, :-1], jnp.ones_like(segments[:, :1]) > 0, 1)
    ends = jax.lax.cummin(jnp.where(last, jnp.arange(T), T - 1), axis=1, reverse=True)
    return jnp.take_along_axis(positions, ends, axis=1) + 1


def rotate(
    x: Float[Array, "B T N H"], angles: Float[Array, "B T P"], amplitude: float = 1.0
) -> Float[Array, "B T N H"]:
    """Rotates each pair `(x[h], x[h + P])` by its angle; computed in float32.

    Where `2 P < H` the rest of the head passes unchanged. `amplitude` multiplies what is rotated.
    """
    P = angles.shape[-1]
    whole = x.shape[-1] == 2 * P
    wide = (x if whole else x[..., : 2 * P]).astype(jnp.float32)
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    if amplitude != 1.0:
        cos, sin = cos * amplitude, sin * amplitude
    first, second = jnp.split(wide, 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    turned = turned.astype(x.dtype)
    return turned if whole else jnp.concatenate([turned, x[..., 2 * P :]], axis=-1)


def _inverse(config: DecoderConfig, theta: float) -> Float[Array, "P"]:
    rotated = config.rotary_dim or config.head_dim
    exponents = jnp.arange(0, rotated, 2, dtype=jnp.float32) / rotated
    return 1.0 / theta**exponents


def _longrope(
    inverse: Float[Array, "P"], scaling: LongRope, lengths: Int[Array, "B T"]
) -> Float[Array, "B T P"]:
    short, long = (inverse / jnp.asarray(x, jnp.float32) for x in (scaling.short, scaling.long))
    return jnp.where((lengths > scaling.original_length)[..., None], long, short)


def _llama3(inverse: Float[Array, "P"], scaling: RopeScaling) -> Float[Array, "P"]:
    wavelength = 2 * math.pi / inverse
    share = (scaling.original_length / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    kept = jnp.clip(share, 0.0, 1.0)  # 0: long wavelength, scaled; 1: short wavelength, kept
    return (1 - kept) * inverse / scaling.factor + kept * inverse

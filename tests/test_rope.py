"""Rotary embeddings against complex numbers and the formulas of their papers, in numpy."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import CONFIG

from hen_jax.models.config import LinearScaling, LongRope, RopeScaling
from hen_jax.models.rope import (
    document_lengths,
    frequencies,
    rope_amplitude,
    rope_angles,
    rotate,
)

INVERSE = 1e4 ** -(np.arange(0, 6, 2) / 6)
LLAMA3 = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=512)
LONG = LongRope((1.0, 2.0, 4.0), (3.0, 5.0, 7.0), original_length=4, attention_factor=1.25)


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize("amplitude", [1.0, 1.25])
@pytest.mark.parametrize("pairs", [3, 2])
def test_a_pair_turns_as_a_complex_number_and_the_rest_stays(pairs, amplitude):
    rng = np.random.default_rng(0)
    x, angles = rng.normal(size=(2, 4, 3, 6)), rng.normal(size=(2, 4, pairs)) * 3
    found = np.asarray(rotate(jnp.float32(x), jnp.float32(angles), amplitude))
    z = (x[..., :pairs] + 1j * x[..., pairs : 2 * pairs]) * amplitude
    z = z * np.exp(1j * angles)[:, :, None]
    wanted = np.concatenate([z.real, z.imag, x[..., 2 * pairs :]], axis=-1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def llama3(inverse: float) -> float:
    """The rule of Llama 3.1 as Meta wrote it, one frequency at a time."""
    wavelength = 2 * math.pi / inverse
    if wavelength < 512 / 4.0:
        return inverse
    if wavelength > 512 / 1.0:
        return inverse / 8.0
    smooth = (512 / wavelength - 1.0) / (4.0 - 1.0)
    return (1 - smooth) * inverse / 8.0 + smooth * inverse


def test_frequencies_fall_from_one_and_are_scaled_as_each_family_says():
    np.testing.assert_allclose(frequencies(config()), INVERSE, rtol=1e-6)
    partial = frequencies(config(rotary_dim=4))
    np.testing.assert_allclose(partial, [1.0, 1e-2], rtol=1e-6)
    halved = frequencies(config(rope_scaling=LinearScaling(4.0)))
    np.testing.assert_allclose(halved, INVERSE / 4, rtol=1e-6)
    wide = config(head_dim=32, rope_scaling=LLAMA3)
    plain = 1e4 ** -(np.arange(0, 32, 2) / 32)
    wanted = np.asarray([llama3(x) for x in plain])
    np.testing.assert_allclose(frequencies(wide), wanted, rtol=1e-5)
    assert {*(wanted / plain).round(4)} > {1.0, 0.125}  # kept, divided, and blends of the two
    np.testing.assert_allclose(
        frequencies(config(rope_scaling=LONG)), INVERSE / [1, 2, 4], rtol=1e-6
    )


def test_a_document_longer_than_longrope_was_trained_for_gets_the_long_factors():
    positions = jnp.asarray([[0, 1, 2, 3]])
    for length, factors in ((4, (1, 2, 4)), (5, (3, 5, 7))):
        found = rope_angles(config(rope_scaling=LONG), positions, jnp.full((1, 4), length))
        wanted = np.arange(4)[None, :, None] * INVERSE / factors
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert rope_amplitude(config(rope_scaling=LONG)) == 1.25
    assert rope_amplitude(config(rope_scaling=LLAMA3)) == 1.0


def test_layers_with_a_window_have_frequencies_of_their_own_where_the_family_says_so():
    two = config(local_rope_theta=100.0, rope_scaling=LinearScaling(4.0))
    positions = jnp.asarray([[0, 1, 7]])
    at = np.asarray([0, 1, 7])[None, :, None]
    local = 100.0 ** -(np.arange(0, 6, 2) / 6)  # never scaled
    np.testing.assert_allclose(rope_angles(two, positions, local=True), at * local, rtol=1e-6)
    np.testing.assert_allclose(rope_angles(two, positions), at * INVERSE / 4, rtol=1e-6)
    same = config(rope_scaling=LinearScaling(4.0))
    np.testing.assert_allclose(
        rope_angles(same, positions, local=True), at * INVERSE / 4, rtol=1e-6
    )


def test_a_document_is_as_long_as_its_last_position_says():
    positions = jnp.asarray([[0, 1, 0, 1, 2, 0], [0, 0, 1, 2, 3, 4]])
    segments = jnp.asarray([[1, 1, 2, 2, 2, 0], [1, 2, 2, 2, 2, 2]])
    wanted = [[2, 2, 3, 3, 3, 1], [1, 5, 5, 5, 5, 5]]
    np.testing.assert_array_equal(document_lengths(positions, segments), wanted)

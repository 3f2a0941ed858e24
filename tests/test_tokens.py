"""The loss of tokens against numpy: masks, fractional weights, ties, overfull rows."""

import jax.numpy as jnp
import numpy as np
import pytest

from hen_jax.objectives.tokens import negative_log_likelihood, score_tokens

B, T, V = 3, 5, 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, T, V)).astype(np.float32)
TARGETS = RNG.integers(0, V, (B, T)).astype(np.int32)
TARGETS[:, 1] = LOGITS[:, 1].argmax(-1)
MASK = np.array([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1]], np.float32)
LOG_PROBS = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
AT_TARGET = np.take_along_axis(LOG_PROBS, TARGETS[..., None], -1)[..., 0]
RIGHT = LOGITS.argmax(-1) == TARGETS


def scored(logits=LOGITS, **options):
    return score_tokens(
        lambda h: h, jnp.asarray(logits), jnp.asarray(TARGETS), jnp.asarray(MASK), **options
    )


@pytest.mark.parametrize("weight", [None, (1.0, 1.0, 1.0), (0.25, 0.125, 0.0), (0.0, 0.5, 3.0)])
def test_the_loss_and_the_accuracy_are_weighted_sums_over_weighted_counts(weight):
    given = None if weight is None else jnp.asarray(weight, jnp.float32)
    loss, metrics = negative_log_likelihood(scored(chunk=2), jnp.asarray(MASK), given)
    rows = MASK if weight is None else MASK * np.asarray(weight)[:, None]
    np.testing.assert_allclose(loss.total, -(AT_TARGET * rows).sum(), rtol=1e-5)
    accuracy = metrics["accuracy"]
    np.testing.assert_allclose(accuracy.total, (RIGHT * rows).sum(), rtol=1e-5)
    assert float(loss.count) == float(accuracy.count) == rows.sum()
    np.testing.assert_allclose(loss.value, -(AT_TARGET * rows).sum() / rows.sum(), rtol=1e-5)


@pytest.mark.parametrize(("capacity", "chunk"), [(None, 64), (3, 2), (3, 3), (4, 1)])
def test_trained_positions_are_scored_and_others_are_zero(capacity, chunk):
    found = scored(capacity=capacity, chunk=chunk)
    np.testing.assert_allclose(found.log_probs, AT_TARGET * MASK, atol=1e-5)
    np.testing.assert_array_equal(found.correct, RIGHT * MASK)


def test_a_target_that_ties_with_the_highest_counts_as_right():
    np.testing.assert_array_equal(scored(np.zeros_like(LOGITS)).correct, MASK)


def test_only_the_row_beyond_the_capacity_is_nan():
    found = np.asarray(scored(capacity=2).log_probs)
    assert np.isnan(found[0][MASK[0] > 0]).all()
    np.testing.assert_allclose(found[1:], (AT_TARGET * MASK)[1:], atol=1e-5)

"""Direct preference objectives against float64, their closed forms, and what breaks others."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hen_jax.core.errors import InputError
from hen_jax.objectives.direct import (
    OBJECTIVES,
    Side,
    Values,
    kto_baseline,
    kto_losses,
    log1mexp,
)
from hen_jax.steps.preference_config import PreferenceConfig

RANDOM = np.random.default_rng(0)
POLICY, REFERENCE = -RANDOM.uniform(3, 60, (2, 2, 9))
REFERENCE = POLICY + RANDOM.normal(0, 4, POLICY.shape)  # h of some nats
LENGTH = RANDOM.integers(3, 30, POLICY.shape)
PAIRED = [name for name, one in OBJECTIVES.items() if one.loss is not None]


def sides(policy=POLICY, reference=REFERENCE, length=LENGTH):
    return [
        Side(*(jnp.asarray(x, jnp.float32) for x in side))
        for side in zip(policy, reference, length, strict=True)
    ]


def by_hand(name: str, values: Values) -> np.ndarray:
    """In float64, from the papers' equations."""
    b, e = values.beta, values.smoothing
    policy, n = POLICY, LENGTH
    h = POLICY - REFERENCE
    d = b * (h[0] - h[1])

    def minus_log_s(x):
        return np.log1p(np.exp(-x))

    def odds(mean):
        return mean - np.log(1 - np.exp(mean))

    return {
        "dpo": lambda: minus_log_s(d),
        "ld_dpo": lambda: minus_log_s(d),
        "cdpo": lambda: (1 - e) * minus_log_s(d) + e * minus_log_s(-d),
        "robust": lambda: ((1 - e) * minus_log_s(d) - e * minus_log_s(-d)) / (1 - 2 * e),
        "hinge": lambda: np.maximum(0, 1 - d),
        "ipo": lambda: (h[0] / n[0] - h[1] / n[1] - 1 / (2 * b)) ** 2,
        "exo": lambda: (
            (-minus_log_s(d) - np.log(1 - e)) / (1 + np.exp(-d))
            + (-minus_log_s(-d) - np.log(e)) / (1 + np.exp(d))
        ),
        "dpo_norm": lambda: minus_log_s(b * (h[0] / n[0] - h[1] / n[1])),
        "simpo": lambda: minus_log_s(b * (policy[0] / n[0] - policy[1] / n[1]) - values.margin),
        "cpo": lambda: minus_log_s(b * (policy[0] - policy[1])),
        "orpo": lambda: b * minus_log_s(odds(policy[0] / n[0]) - odds(policy[1] / n[1])),
    }[name]()


@pytest.mark.parametrize("name", PAIRED)
def test_every_loss_against_float64(name):
    values = PreferenceConfig(loss=name).values
    found = OBJECTIVES[name].loss(*sides(), values)
    np.testing.assert_allclose(found, by_hand(name, values), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in PAIRED if OBJECTIVES[name].start is not None])
def test_the_value_where_the_policy_is_the_reference(name):
    values = PreferenceConfig(loss=name).values
    found = OBJECTIVES[name].loss(*sides(reference=POLICY), values)
    np.testing.assert_allclose(found, OBJECTIVES[name].start(values), rtol=1e-6)
    if name in ("dpo", "cdpo", "robust", "dpo_norm", "ld_dpo"):
        assert OBJECTIVES[name].start(values) == math.log(2)


def test_kto_against_float64_and_z0_has_no_gradient():
    values = Values(beta=0.3, desirable=1.5, undesirable=0.7)
    h = jnp.asarray((POLICY - REFERENCE)[0], jnp.float32)
    z0 = kto_baseline(jnp.float32(7.0), jnp.float32(5.0))
    assert float(z0) == pytest.approx(1.4)
    wanted, unwanted = kto_losses(h, z0, values)
    x = 0.3 * (np.asarray(h, float) - 1.4)
    np.testing.assert_allclose(wanted, 1.5 * (1 - 1 / (1 + np.exp(-x))), rtol=1e-5)
    np.testing.assert_allclose(unwanted, 0.7 * (1 - 1 / (1 + np.exp(x))), rtol=1e-5)
    assert jax.grad(lambda z: kto_losses(h, z, values)[0].sum())(z0) == 0
    assert kto_baseline(jnp.float32(-3.0), jnp.float32(2.0)) == 0  # never below 0
    assert kto_baseline(jnp.float32(0.0), jnp.float32(0.0)) == 0


@pytest.mark.parametrize("name", PAIRED)
def test_a_better_margin_loses_less_and_pushes_the_right_way(name):
    """Both sides may fall in training; the gap must grow."""
    values = PreferenceConfig(loss=name).values

    def total(policy):
        chosen, rejected = sides(length=np.full_like(LENGTH, 40))
        given = (
            side._replace(policy=x) for side, x in zip((chosen, rejected), policy, strict=True)
        )
        return OBJECTIVES[name].loss(*given, values).sum()

    gradient = jax.jit(jax.grad(total))(jnp.asarray(POLICY, jnp.float32))
    assert (gradient[0] <= 0).all()
    assert (gradient[1] >= 0).all()
    assert float(jnp.abs(gradient).max()) > 0


@pytest.mark.parametrize("name", PAIRED)
def test_a_reply_of_no_tokens_gives_no_nan(name):
    values = PreferenceConfig(loss=name).values

    def total(policy):
        chosen, rejected = sides(length=np.zeros_like(LENGTH), reference=np.zeros_like(POLICY))
        given = (
            side._replace(policy=x) for side, x in zip((chosen, rejected), policy, strict=True)
        )
        return OBJECTIVES[name].loss(*given, values).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.zeros(POLICY.shape))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_log1mexp_near_zero_and_far_from_it():
    x = -np.logspace(-7, 1, 40)
    found = jax.jit(log1mexp)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, np.log(-np.expm1(np.float32(x).astype(float))), rtol=2e-6)
    slope = jax.jit(jax.grad(lambda v: log1mexp(v).sum()))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(slope, -1 / np.expm1(-np.float32(x).astype(float)), rtol=1e-4)


def test_the_odds_of_a_reply_that_is_certain_are_finite():
    """A mean log-probability of exactly 0: the odds would be infinite, and the gradient NaN."""
    chosen, rejected = sides(policy=np.stack([np.zeros(9), POLICY[1]]))
    values = Values(beta=0.1)

    def total(policy):
        return OBJECTIVES["orpo"].loss(chosen._replace(policy=policy), rejected, values).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(chosen.policy)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_published_values_stand_and_what_is_not_read_is_refused():
    assert PreferenceConfig().values == Values(beta=0.1)
    assert PreferenceConfig(loss="simpo").values == Values(beta=2.5, margin=1.375)
    assert PreferenceConfig(loss="orpo").values.sft == 1.0
    assert PreferenceConfig(loss="cpo", sft=0.0).values == Values(beta=0.1)
    assert PreferenceConfig(loss="dpo", sft=0.2, beta=0.5).values == Values(beta=0.5, sft=0.2)
    with pytest.raises(InputError, match=r"margin is 1\.0, which 'dpo' does not read"):
        PreferenceConfig(margin=1.0)
    with pytest.raises(
        InputError, match=r"smoothing is 0\.5; allowed: more than 0, less than 0\.5"
    ):
        PreferenceConfig(loss="robust", smoothing=0.5)
    with pytest.raises(InputError, match=r"reference is 'precomputed', but kto"):
        PreferenceConfig(loss="kto", reference="precomputed")

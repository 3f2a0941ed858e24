"""Inner loops of one number against numpy in float64, mode by mode."""

import jax
import numpy as np
import optax
import pytest

from hen_jax.meta.inner import InnerLoop, descend

CURVATURE, RATE, DECAY, START, QUERY, STEPS = 0.7, 0.2, 0.5, 2.0, -1.0, 5
CENTRES = np.array([1.5, -0.5, 2.5, 0.3, 1.1])
AT = {"scale": 1.3, "pull": 0.4, "rate": 0.2}
MASSES = np.array([1.0, -2.0, 3.0, 0.5, -1.5])  # of the inner losses in the outer one
EVERYTHING = jax.checkpoint_policies.everything_saveable
VARIANTS = {
    "plain": {},
    "blocks": {"block": 2},
    "single blocks": {"block": 1},
    "kept": {"keep": EVERYTHING},
    "offloaded": {"offload": True, "block": 2},
}


def inner_loss(theta, eta, centre):
    return eta["scale"] * CURVATURE / 2 * (theta - centre) ** 2


def optimizer(eta):
    return optax.chain(optax.trace(decay=DECAY), descend(eta["rate"]))


def outer_loss(trained, eta):
    return 0.5 * (trained.theta - QUERY) ** 2 + trained.losses @ MASSES + eta["scale"] ** 2


def by_hand(start, eta, centres, constant_after, read=None):
    """The outer loss; inner gradients from step `constant_after` on are those of the point `read`.

    Returns it and the inner gradients, to be read by calls at other points.
    """
    theta, momentum, losses, slopes = start, 0.0, [], []
    for k, centre in enumerate(centres):
        losses.append(eta["scale"] * CURVATURE / 2 * (theta - centre) ** 2)
        slopes.append(eta["scale"] * CURVATURE * (theta - centre))
        slope = slopes[k] if read is None or k >= constant_after else read[k]
        momentum = DECAY * momentum + slope + eta["pull"] * (theta - start)
        theta -= eta["rate"] * momentum
    value = 0.5 * (theta - QUERY) ** 2 + np.array(losses) @ MASSES + eta["scale"] ** 2
    return value, slopes


def derivatives(centres, constant_before):
    """Of the outer loss in the start and in eta, by central differences."""
    _, slopes = by_hand(START, AT, centres, 0)

    def moved(name, by):
        start = START + by * (name == "start")
        eta = {key: leaf + by * (key == name) for key, leaf in AT.items()}
        return by_hand(start, eta, centres, constant_before, slopes)[0]

    step = 1e-4
    return {
        name: (8 * (moved(name, step) - moved(name, -step)) - moved(name, 2 * step)
               + moved(name, -2 * step)) / (12 * step)
        for name in ("start", *AT)
    }  # fmt: skip


RULES = [("mixflow", 5), ("mixflow", 2), ("first_order", 0)]
CASES = [(variant, *rule) for variant in VARIANTS for rule in RULES] + [("plain", "unroll", 2)]


@pytest.mark.parametrize(("variant", "rule", "window"), CASES)
def test_every_derivative_of_an_inner_loop(variant, rule, window):
    """Start, scale of the loss, learnt pull and rate; through the end and through the losses."""
    inner = InnerLoop(
        inner_loss, optimizer, STEPS, proximal=lambda eta: eta["pull"], **VARIANTS[variant]
    )

    def value(start, eta):
        chosen = {} if rule == "first_order" else {"window": window}
        return outer_loss(inner(start, eta, CENTRES, rule=rule, **chosen), eta)

    with jax.enable_x64(True):
        point = jax.tree.map(np.float64, (START, AT))
        found, (start, eta) = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(*point)
    expected = derivatives(CENTRES, STEPS - window)
    assert float(found) == pytest.approx(by_hand(START, AT, CENTRES, 0)[0], rel=1e-9)
    assert {"start": float(start), **eta} == pytest.approx(expected, rel=1e-7)

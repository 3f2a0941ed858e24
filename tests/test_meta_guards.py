"""What would make a meta-gradient silently wrong or NaN: refused, or told with the result."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hen_jax.core.errors import InputError
from hen_jax.core.types import Batch, Mean
from hen_jax.curricula.shared import EmclConfig, require_gradient
from hen_jax.data.episodes import Episode
from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.guards import require_smooth
from hen_jax.meta.implicit import conjugate_gradient, neumann
from hen_jax.meta.inner import InnerLoop, clip_by_norm
from hen_jax.meta.symmetry import asymmetry, require_symmetric
from hen_jax.training.guards import GuardConfig, guard
from hen_jax.training.optimizers import OptimizerConfig, make_optimizer

THETA, ETA, BATCH = np.float32([0.6, -1.2]), np.float32([0.5, 2.0]), np.float32([1.0, 0.3])


def passed_back_as(rule):
    """The identity, whose cotangent goes through `rule`."""
    same = jax.custom_vjp(lambda x: x)
    same.defvjp(lambda x: (x, None), lambda _, g: (rule(g),))
    return same


RULES = {
    "reverses": lambda g: -g,
    "scales": lambda g: 0.5 * g,
    "clips": lambda g: jnp.clip(g, -0.1, 0.1),
}


def through(function):
    def loss(theta, eta, batch):
        hidden = function(jnp.tanh(theta * batch))
        return jnp.sum(eta * hidden**2) + hidden.prod()

    return loss


def cube(x):
    return x**3


true_rule = jax.custom_jvp(cube)
true_rule.defjvp(lambda x, t: (x[0] ** 3, 3 * x[0] ** 2 * t[0]))


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_that_is_none_is_refused_where_forward_over_reverse_would_be_wrong(name):
    loss = through(passed_back_as(RULES[name]))
    with pytest.raises(InputError, match="mode='unroll'"):
        require_symmetric(loss, THETA, ETA, BATCH)


def test_what_is_refused_is_refused_with_reason():
    repeated = InnerLoop(through(passed_back_as(RULES["scales"])), optax.sgd(0.3), 2, repeat=True)
    for mode in ("mixflow", "implicit"):
        with pytest.raises(InputError, match="custom_vjp"):
            meta_gradient(repeated, cube, mode)(THETA, ETA, BATCH, BATCH)
    loss = through(passed_back_as(RULES["reverses"]))
    inner = InnerLoop(loss, optax.sgd(0.3), 2)
    batches = np.stack([BATCH, BATCH[::-1]])
    mixed, plain = (
        jax.jit(meta_gradient(inner, loss, mode))(THETA, ETA, batches, BATCH)[1:3]
        for mode in ("mixflow", "unroll")
    )
    assert max(np.abs(x - y).max() for x, y in zip(mixed, plain, strict=True)) > 0.01


def test_gradients_that_are_some_pass():
    inner = InnerLoop(through(true_rule), optax.sgd(0.3), 1)
    found = meta_gradient(inner, through(true_rule))(THETA, ETA, BATCH[None], BATCH)
    assert np.isfinite(found.theta).all()
    require_symmetric(through(cube), THETA, ETA, BATCH)
    require_symmetric(lambda theta, eta, batch: (theta * batch).sum(), THETA, None, BATCH)
    rounded = through(lambda x: x.astype(jnp.bfloat16))
    require_symmetric(rounded, THETA, ETA, BATCH)


def test_asymmetry_is_the_difference_of_exchanged_derivatives():
    """`g = A theta` with a matrix that is not symmetric, and a gradient that eta passes by."""
    matrix = jnp.asarray([[1.0, 0.7], [0.2, 1.0]])

    @jax.custom_vjp
    def value(theta):
        return theta @ matrix @ theta / 2

    value.defvjp(lambda theta: (value(theta), theta), lambda theta, g: (g * (matrix @ theta),))
    found = asymmetry(lambda theta, eta, batch: value(theta), THETA, None, None, pairs=40)
    # w A u - u A w = (0.7 - 0.2) (w1 u2 - w2 u1): 0 or 2 times that, each with half the chance.
    # |A u| and |A w| are |(1.7, 1.2)| or |(0.3, 0.8)|, the larger of the two counts.
    assert 0.5 / 2 < found.difference / (1.0 / np.hypot(1.7, 1.2)) < 1.5
    assert found.noise < 1e-6
    scaled = asymmetry(
        lambda theta, eta, batch: passed_back_as(RULES["scales"])(theta) @ eta, THETA, ETA, None
    )
    assert float(scaled.difference) == pytest.approx(0.5, rel=0.5)  # half of theta's own is lost


def test_emcl_looks_at_its_loss_before_the_first_step():
    x = np.arange(6, dtype=np.float32).reshape(2, 1, 3, 1)

    def draw():
        return Episode(Batch(x, x, x, x, x), Batch(*[x[:, 0]] * 5))

    def loss_with(rule):
        def loss(params, frozen, batch):
            each = (passed_back_as(rule)(params) * frozen - batch.tokens) ** 2
            return Mean((each.sum(-1) * batch.weight).sum(), batch.weight.sum()), {}

        return loss

    for config in (EmclConfig(), EmclConfig(curriculum="emcl_c"), EmclConfig(mode="implicit")):
        require_gradient(config, loss_with(lambda g: g), THETA, BATCH, draw)
        with pytest.raises(InputError, match="unroll"):
            require_gradient(config, loss_with(RULES["reverses"]), THETA, BATCH, draw)
    for config in (EmclConfig(mode="unroll"), EmclConfig(curriculum="sft")):
        require_gradient(config, loss_with(RULES["reverses"]), THETA, BATCH, draw)


LEAVES = {"a": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(0.1),
        optax.clip_by_global_norm(1.0),
        optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.1)),
        optax.chain(optax.clip_by_block_rms(1.0), optax.sgd(0.1)),
        optax.stateless(lambda g, p: jax.tree.map(lambda x: x * jnp.linalg.norm(p["a"]), g)),
        optax.stateless(lambda g, p: jax.tree.map(lambda x: x * jnp.linalg.norm(p["b"]), g)),
        optax.stateless(lambda g, p: jax.tree.map(lambda x: x * jnp.linalg.norm(g["a"]), g)),
        optax.stateless(lambda g, p: jax.tree.map(lambda x: x * jnp.linalg.norm(g["b"]), g)),
    ],
    ids=["adam", "norm", "normalised", "each leaf", "params a", "params b", "slope a", "slope b"],
)
def test_an_optimizer_without_a_derivative_at_zero_is_refused(optimizer):
    with pytest.raises(InputError, match=r"eps_root=1e-8.*clip_by_norm"):
        require_smooth(lambda _: optimizer, LEAVES, None)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(clip_by_norm(1.0), optax.adam(0.1, eps_root=1e-8)),
        optax.sgd(0.1, momentum=0.9),
        # What EMCL carries on with.
        guard(
            make_optimizer(OptimizerConfig(1e-3, eps_root=1e-8), lambda _: 1e-3),
            GuardConfig(spike=9.0),
        ),
    ],
    ids=["clipped adam", "momentum", "of a run"],
)
def test_the_meta_gradient_is_finite_where_every_inner_gradient_is_zero(optimizer):
    require_smooth(lambda _: optimizer, LEAVES, None)
    inner = InnerLoop(lambda theta, eta, batch: eta @ (theta - batch) ** 2, optimizer, 2)
    batches = np.stack([BATCH, BATCH[::-1]])
    outer = lambda theta, eta, query: ((theta - query) ** 2).sum()  # noqa: E731
    for mode in ("mixflow", "unroll"):
        meta = jax.jit(meta_gradient(inner, outer, mode))
        found = meta(THETA, np.zeros(2, np.float32), batches, BATCH)
        assert np.isfinite(found.eta).all()
        np.testing.assert_allclose(found.theta, 2 * (THETA - BATCH), rtol=1e-6)


def test_a_loop_looks_at_its_optimizer_unless_nothing_is_differentiated():
    inner = InnerLoop(lambda theta, eta, batch: theta @ batch, optax.adam(0.1), 1)
    for options in ({"rule": "unroll"}, {"window": 1}):
        with pytest.raises(InputError, match="eps_root"):
            inner(THETA, None, BATCH[None], **options)
    for options in ({"rule": "first_order"}, {"window": 0}):
        assert np.isfinite(inner(THETA, None, BATCH[None], **options).theta).all()


def test_clip_by_norm_is_that_of_optax():
    for scale in (0.0, 0.1, 0.999, 1.0, 7.0, np.inf, np.nan):
        gradient = {"a": np.float32([0.6 * scale]), "b": np.float32([0.8 * scale])}
        ours, theirs = (
            c(1.0).update(gradient, c(1.0).init(gradient))[0]
            for c in (clip_by_norm, optax.clip_by_global_norm)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# Curvatures from 1e-3 to 1e2 and a weak pull to the start: badly conditioned.

CURVATURES, PULL = np.logspace(-3, 2, 30).astype(np.float32), 0.1


def quadratic(theta, eta, centre):
    return jnp.sum(CURVATURES / 2 * (theta - centre) ** 2)


def minimised(**options):
    inner = InnerLoop(quadratic, optax.sgd(0.015), 1, repeat=True, proximal=PULL)
    query = lambda theta, eta, _: jnp.sum(theta**2) / 2  # noqa: E731
    meta = jax.jit(meta_gradient(inner, query, "implicit", **options))
    found = meta(np.ones(30, np.float32), None, np.full(30, 3.0, np.float32), None)
    exact = PULL / (CURVATURES + PULL) * found.trained.theta
    error = np.linalg.norm(found.theta - exact) / np.linalg.norm(exact)
    return error, float(found.trained.residual)


def test_implicit_iterates_until_its_equations_hold():
    error, residual = minimised()
    assert error < 1e-4
    assert residual < 1e-5


@pytest.mark.parametrize(
    "solver", [conjugate_gradient(10), neumann(10, 0.01)], ids=["cg", "series"]
)
def test_implicit_that_stops_before_is_nan_or_says_how_far_off_it_is(solver):
    error, residual = minimised(solver=solver)
    assert np.isnan(error)
    assert residual > 0.05
    error, same = minimised(solver=solver, bound=math.inf)
    assert error > 0.05
    assert same == residual
    with pytest.raises(InputError, match="bound"):
        meta_gradient(InnerLoop(quadratic, optax.sgd(0.1), 1), quadratic, "unroll", bound=1.0)

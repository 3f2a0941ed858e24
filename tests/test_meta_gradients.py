"""Meta-gradients against each other, finite differences and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hen_jax.core.errors import InputError
from hen_jax.meta.check import check_gradient, check_meta_gradient
from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.implicit import conjugate_gradient, neumann
from hen_jax.meta.inner import InnerLoop, descend

QUICK = {"xla_backend_optimization_level": 0}  # halves the time to compile
STEPS, ROWS, LAYERS, WIDTH, RANK = 4, 3, 2, 4, 2


def draw(name, *shape):
    return np.random.default_rng(len(name) + ord(name[0])).standard_normal(shape).astype("float32")


BASE = {"w": 0.5 * draw("w", LAYERS, WIDTH, WIDTH)}
LORA = {"a": draw("a", LAYERS, WIDTH, RANK), "b": np.zeros((LAYERS, RANK, WIDTH), "float32")}
BATCHES = {
    "x": draw("x", STEPS, ROWS, WIDTH),
    "y": draw("y", STEPS, ROWS, WIDTH),
    "row": np.tile(np.arange(ROWS), (STEPS, 1)),
}
QUERY = {"x": draw("query_x", ROWS, WIDTH), "y": draw("query", ROWS, WIDTH)}


def forward(params, x):
    """A residual stack with rematerialised, scanned blocks; low-rank where there is an adapter."""

    def block(x, layer):
        y = x @ layer["w"]
        if "a" in layer:
            y = y + (x @ layer["a"]) @ layer["b"]
        return x + jnp.tanh(y), None

    return jax.lax.scan(jax.checkpoint(block), x, params)[0]


def errors(theta, batch):
    params = theta if "w" in theta else BASE | theta
    return jnp.mean((forward(params, batch["x"]) - batch["y"]) ** 2, axis=-1)


def loss(theta, eta, batch):
    return jnp.sum(jax.nn.softmax(eta["scores"])[batch["row"]] * errors(theta, batch))


def query_loss(theta, eta, query):
    return jnp.mean(errors(theta, query)) + 0.1 * jnp.sum(eta["scores"] ** 2)


OPTIMIZERS = {
    "sgd": [optax.identity()],
    "momentum": [optax.trace(decay=0.9)],
    "adam": [optax.scale_by_adam(eps_root=1e-4)],
}


def setting(name, theta, learnt_rates):
    eta = {"scores": draw("scores", ROWS)}
    if not learnt_rates:
        return eta, optax.chain(*OPTIMIZERS[name], optax.scale(-0.1))
    eta["rates"] = jax.tree.map(lambda leaf: np.float32(0.1 + 0.01 * leaf.ndim), theta)
    return eta, lambda eta: optax.chain(*OPTIMIZERS[name], descend(eta["rates"]))


def in_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, "float64" if x.dtype == "float32" else None), tree)


def gradients(mode, inner, theta, eta, batches=BATCHES, query=QUERY, **options):
    meta = jax.jit(meta_gradient(inner, query_loss, mode, **options), compiler_options=QUICK)
    found = meta(theta, eta, batches, query)
    return found.theta, found.eta


def distance(found, expected):
    """The largest relative error of a leaf, in the 2-norm."""

    def relative(x, y):
        return np.linalg.norm(x - y) / np.maximum(np.linalg.norm(y), 1e-3)

    return max(jax.tree.leaves(jax.tree.map(relative, found, expected)))


@pytest.mark.parametrize(
    ("name", "theta", "learnt_rates"),
    [
        ("sgd", LORA, False),
        ("sgd", BASE, True),
        ("momentum", LORA, True),
        ("momentum", BASE, False),
        ("adam", LORA, True),
        ("adam", BASE, False),
    ],
    ids=lambda value: ("lora" if "a" in value else "full") if isinstance(value, dict) else value,
)
def test_mixflow_equals_unroll_equals_finite_differences(name, theta, learnt_rates):
    eta, optimizer = setting(name, theta, learnt_rates)
    inner = InnerLoop(loss, optimizer, STEPS, block=1)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def value(theta, eta):
        return query_loss(inner(theta, eta, batches).theta, eta, query)

    with jax.enable_x64(True):
        theta, eta, batches, query = in_float64((theta, eta, BATCHES, QUERY))
        mixed = gradients("mixflow", inner, theta, eta, batches, query)
        assert distance(mixed, gradients("unroll", inner, theta, eta, batches, query)) < 1e-9
    agreement = check_gradient(value, lambda theta, eta: mixed, (theta, eta))
    assert agreement.error < 1e-6, agreement


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_mixflow_equals_unroll_in_float32(name):
    eta, optimizer = setting(name, LORA, learnt_rates=True)
    inner = InnerLoop(loss, optimizer, STEPS)
    mixed, plain = (gradients(mode, inner, LORA, eta) for mode in ("mixflow", "unroll"))
    assert distance(mixed, plain) < 1e-5


def test_check_meta_gradient_passes_the_exact_mode_and_fails_first_order():
    eta, optimizer = setting("sgd", BASE, learnt_rates=True)
    arguments = InnerLoop(loss, optimizer, STEPS), query_loss, BASE, eta, BATCHES, QUERY
    assert check_meta_gradient(*arguments).error < 1e-6
    assert check_meta_gradient(*arguments, mode="first_order").error > 0.01


def test_no_nan_where_adam_meets_the_zero_gradient_of_a_fresh_adapter():
    eta, _ = setting("adam", LORA, learnt_rates=False)
    assert not np.any(jax.grad(loss)(LORA, eta, jax.tree.map(lambda x: x[0], BATCHES))["a"])
    inner = InnerLoop(loss, optax.adam(1e-2, eps_root=1e-8), STEPS)
    found = gradients("mixflow", inner, LORA, eta)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert np.abs(found[0]["a"]).max() > 0
    with pytest.raises(InputError, match="eps_root"):
        gradients("mixflow", InnerLoop(loss, optax.adam(1e-2), STEPS), LORA, eta)


@pytest.mark.parametrize(
    ("options", "window"),
    [
        # 3 does not divide the steps.
        ({"block": 3, "proximal": lambda eta: eta["pull"]}, None),
        ({"repeat": True, "block": 2, "offload": True}, None),
        ({"proximal": 0.5, "block": 1}, 3),
        ({"keep": jax.checkpoint_policies.everything_saveable}, None),
        ({"keep": jax.checkpoint_policies.dots_saveable}, 3),
    ],
    ids=[
        "uneven blocks, learnt pull",
        "one batch, offloaded",
        "window, pull",
        "all values kept",
        "products kept, window",
    ],
)
def test_replayed_states_give_the_gradient_of_the_unroll(options, window):
    eta, optimizer = setting("adam", LORA, learnt_rates=True)
    eta["pull"] = np.float32(0.3)
    inner = InnerLoop(loss, optimizer, STEPS, **options)
    batches = jax.tree.map(lambda x: x[0], BATCHES) if inner.repeat else BATCHES
    with jax.enable_x64(True):
        point = in_float64((LORA, eta, batches, QUERY))
        mixed, plain = (gradients(m, inner, *point, window=window) for m in ("mixflow", "unroll"))
    assert distance(mixed, plain) < 1e-9


def test_a_gradient_reaches_the_data_the_start_of_the_optimizer_and_the_losses():
    eta, optimizer = setting("momentum", LORA, learnt_rates=False)
    inner = InnerLoop(loss, optimizer, STEPS)
    momentum = jax.tree.map(lambda leaf: 0.1 * np.ones_like(leaf), LORA)

    def outer(x, momentum, rule):
        state = (optax.TraceState(momentum), optax.ScaleState())
        end = inner(LORA, eta, BATCHES | {"x": x}, state, rule=rule)
        return query_loss(end.theta, eta, QUERY) + end.losses @ jnp.arange(1.0, STEPS + 1)

    mixed, plain = (
        jax.jit(jax.grad(outer, argnums=(0, 1)), static_argnums=2)(BATCHES["x"], momentum, rule)
        for rule in ("mixflow", "unroll")
    )
    assert np.abs(plain[0]).min(axis=(1, 2)).max() > 0
    assert distance(mixed, plain) < 1e-5


def test_tasks_in_parallel_equal_tasks_in_turn():
    eta, optimizer = setting("sgd", LORA, learnt_rates=True)
    # A rate per task: eta carries a leading task axis, and so does its gradient.
    rates = jax.tree.map(lambda rate: jnp.stack([rate, 2 * rate]), eta["rates"])
    etas = {"scores": eta["scores"], "rates": rates}
    tasks = jax.tree.map(lambda x: np.stack([x, x[::-1]]), (BATCHES, QUERY))
    inner = InnerLoop(loss, optimizer, STEPS)

    def of_task(theta, eta, batches, query):
        return meta_gradient(inner, query_loss)(theta, eta, batches, query)[1:3]

    over_eta = {"scores": None, "rates": 0}
    parallel = jax.jit(jax.vmap(of_task, in_axes=(None, over_eta, 0, 0)))(LORA, etas, *tasks)
    for task in range(2):
        here = jax.tree.map(lambda x, task=task: x[task], (rates, *tasks, parallel))
        alone = gradients("mixflow", inner, LORA, eta | {"rates": here[0]}, *here[1:3])
        assert distance(here[3], alone) < 1e-5


def test_gradient_reaches_what_the_loss_closes_over():
    eta, optimizer = setting("momentum", LORA, learnt_rates=False)

    def outer(base, rule):
        def closed(theta, eta, batch):
            found = forward(base | theta, batch["x"])
            return jnp.mean((found - batch["y"]) ** 2)

        trained = InnerLoop(closed, optimizer, STEPS)(LORA, eta, BATCHES, rule=rule)
        return query_loss(trained.theta, eta, QUERY) + jnp.sum(trained.losses)

    mixed, plain = (
        jax.jit(jax.grad(outer), static_argnums=1)(BASE, r) for r in ("mixflow", "unroll")
    )
    assert np.abs(plain["w"]).max() > 1e-3
    assert distance(mixed, plain) < 1e-5


# Quadratics: L = a/2 (theta - c)^2, one scalar, everything in closed form.

CURVATURE, CENTRE, RATE, START = 0.7, 1.5, 0.2, 4.0


def quadratic(theta, eta, centre):
    return CURVATURE / 2 * (theta - centre) ** 2


def quadratic_query(theta, eta, centre):
    return 0.5 * (theta - centre) ** 2


def slope_at_start(mode, steps=1, optimizer=None, **options):
    inner = InnerLoop(quadratic, optimizer or optax.sgd(RATE), steps, repeat=True, **options)
    meta = jax.jit(meta_gradient(inner, quadratic_query, mode))
    found = meta(jnp.float32(START), None, jnp.float32(CENTRE), jnp.float32(-1.0))
    return found.theta / (found.trained.theta + 1.0), found


def test_first_order_lacks_the_known_factor_on_a_quadratic():
    for mode, factor in (
        ("mixflow", 1 - RATE * CURVATURE),
        ("unroll", 1 - RATE * CURVATURE),
        ("first_order", 1.0),
    ):
        assert slope_at_start(mode)[0] == pytest.approx(factor, rel=1e-6)


def test_window_counts_earlier_inner_gradients_as_constants():
    inner = InnerLoop(quadratic, optax.sgd(RATE), 5, repeat=True)
    for window in range(6):
        meta = meta_gradient(inner, quadratic_query, window=window)
        found = meta(jnp.float32(START), None, jnp.float32(CENTRE), jnp.float32(-1.0))
        factor = found.theta / (found.trained.theta + 1.0)
        assert factor == pytest.approx((1 - RATE * CURVATURE) ** window, rel=1e-5)


def test_two_windows_in_a_row_train_as_one_long_loop():
    eta, optimizer = setting("adam", LORA, learnt_rates=True)
    whole = InnerLoop(loss, optimizer, STEPS)(LORA, eta, BATCHES)
    half = InnerLoop(loss, optimizer, STEPS // 2)
    early, late = (
        jax.tree.map(lambda x, part=part: x[part], BATCHES) for part in (slice(0, 2), slice(2, 4))
    )
    first = half(LORA, eta, early)
    second = half(first.theta, eta, late, first.state)
    assert distance(second.theta, whole.theta) < 1e-6
    np.testing.assert_allclose(
        np.concatenate([first.losses, second.losses]), whole.losses, rtol=1e-5
    )


def test_implicit_gives_the_factor_of_the_proximal_minimiser():
    strength = 2.0
    factor, _ = slope_at_start("implicit", steps=100, proximal=strength)
    assert factor == pytest.approx(1 / (1 + CURVATURE / strength), rel=1e-5)


@pytest.mark.parametrize("solver", [conjugate_gradient(80, 1e-12), neumann(400, 0.5)])
def test_implicit_equals_the_converged_unroll_also_for_the_pull_to_the_start(solver):
    batch = jax.tree.map(lambda x: x[0], BATCHES)
    eta = {"scores": draw("scores", ROWS), "pull": np.float32(1.0)}
    inner = InnerLoop(loss, optax.sgd(0.5), 400, repeat=True, proximal=lambda eta: eta["pull"])
    with jax.enable_x64(True):
        point = in_float64((BASE, eta, batch, QUERY))
        assert (
            distance(
                gradients("implicit", inner, *point, solver=solver),
                gradients("unroll", inner, *point),
            )
            < 1e-6
        )


def test_reptile_points_from_the_trained_parameters_to_the_start():
    _, found = slope_at_start("reptile")
    assert found.theta == pytest.approx(RATE * CURVATURE * (START - CENTRE))
    assert found.eta is None


def test_check_names_the_leaf_whose_gradient_is_wrong():
    def value(x, y):
        return jnp.sum(x**3) + jnp.sum(jnp.sin(y["good"]) + y["bad"])

    def wrong(x, y):
        return 3 * x**2, {"good": jnp.cos(y["good"]), "bad": 1.01 * jnp.ones_like(y["bad"])}

    point = (np.ones(3), {"good": np.ones(2), "bad": np.ones(2)})
    agreement = check_gradient(value, wrong, point)
    assert agreement.worst == "[1]['bad']"
    assert agreement.error == pytest.approx(0.01, rel=1e-3)
    assert check_gradient(value, jax.grad(value, argnums=(0, 1)), point).error < 1e-9
    nowhere = check_gradient(value, lambda x, y: jax.tree.map(lambda z: z * jnp.nan, (x, y)), point)
    assert np.isnan(nowhere.error)


def test_bad_input_names_the_remedy():
    inner = InnerLoop(loss, optax.sgd(0.1), STEPS)
    eta = {"scores": jnp.zeros(ROWS)}
    with pytest.raises(InputError, match="bfloat16"):
        inner(jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), LORA), eta, BATCHES)
    with pytest.raises(InputError, match="repeat=True"):
        inner(LORA, eta, jax.tree.map(lambda x: x[:2], BATCHES))
    with pytest.raises(InputError, match="block"):
        InnerLoop(loss, optax.sgd(0.1), STEPS, block=0)
    with pytest.raises(InputError, match="one objective"):
        meta_gradient(inner, query_loss, "implicit")
    with pytest.raises(InputError, match="window"):
        meta_gradient(inner, query_loss, "reptile", window=1)
    with pytest.raises(InputError, match="first_order"):
        meta_gradient(inner, query_loss, "fomaml")  # pyright: ignore[reportArgumentType]

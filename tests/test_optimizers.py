"""The optimizer, its schedule and the one division of a step, against references written here."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Range, require_in
from hen_jax.core.trees import flatten, unflatten
from hen_jax.core.types import Batch, Mean
from hen_jax.runs.settings import settings
from hen_jax.steps.state import init_state
from hen_jax.steps.update import update_step
from hen_jax.training.metrics import fetch_metrics
from hen_jax.training.optimizers import OptimizerConfig, make_optimizer, make_schedule

DECAYED = {"embed/embedding": (3, 2), "mlp/kernel": (2, 2), "mlp/lora_a": (2, 1)}
SHAPES = DECAYED | {"norm/scale": (2,), "mlp/bias": (2,)}


def adamw(config: OptimizerConfig, rates, params, gradients):
    """AdamW after clipping by the global norm, in float64; step by step."""
    m = {path: np.zeros(x.shape) for path, x in params.items()}
    v = {path: np.zeros(x.shape) for path, x in params.items()}
    for t, (rate, step) in enumerate(zip(rates, gradients, strict=True), start=1):
        norm = math.sqrt(sum((g**2).sum() for g in step.values()))
        shrink = min(1.0, config.clip_norm / norm)
        for path, g in step.items():
            m[path] = config.b1 * m[path] + (1 - config.b1) * shrink * g
            v[path] = config.b2 * v[path] + (1 - config.b2) * (shrink * g) ** 2
            mean, square = m[path] / (1 - config.b1**t), v[path] / (1 - config.b2**t)
            move = mean / (np.sqrt(square + config.eps_root) + config.eps)
            decay = config.weight_decay if path in DECAYED else 0.0
            params[path] = params[path] - rate * (move + decay * params[path])
    return params


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip_norm": 0.5},
        {"clip_norm": 100.0, "eps": 0.1},
        {"weight_decay": 0.3},
        {"b1": 0.5, "b2": 0.7},
        {"eps": 0.2, "eps_root": 0.0},
        {"eps_root": 0.4},
    ],
    ids=str,
)
def test_an_update_is_adamw_of_clipped_gradients(changes):
    # Adam forgets the scale of its gradients; an `eps` of their size makes clipping visible.
    usual = {"eps": 0.05, "clip_norm": 2.0, "weight_decay": 0.1, "eps_root": 0.01}
    config = OptimizerConfig(0.1, "linear", warmup=0.5, **(usual | changes))
    rng = np.random.default_rng(0)
    start = {path: rng.normal(size=shape) for path, shape in SHAPES.items()}
    gradients = [
        {path: size * rng.normal(size=shape) for path, shape in SHAPES.items()}
        for size in (3.0, 0.1, 1.0, 0.02)
    ]
    schedule = make_schedule(config, 4)
    optimizer = make_optimizer(config, schedule)
    params = unflatten({path: jnp.asarray(x, jnp.float32) for path, x in start.items()})
    state = optimizer.init(params)
    for step in gradients:
        tree = unflatten({path: jnp.asarray(x, jnp.float32) for path, x in step.items()})
        updates, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, updates)
    wanted = adamw(config, [0.0, 0.05, 0.1, 0.05], dict(start), gradients)
    for path, leaf in flatten(params).items():
        np.testing.assert_allclose(leaf, wanted[path], rtol=2e-5, atol=1e-6, err_msg=path)


def rate(config: OptimizerConfig, steps: int, step: int) -> float:
    """The closed form: a line from 0 over the warm-up, then what is left to `final`."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (config.final + (1 - config.final) * left[config.schedule])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(
    ("warmup", "final", "steps"), [(0.2, 0.1, 10), (0.0, 0.0, 7), (0.26, 0.5, 11), (1.0, 0.3, 4)]
)
def test_the_learning_rate_of_every_step_has_a_closed_form(schedule, warmup, final, steps):
    config = OptimizerConfig(0.3, schedule, warmup, final)
    found = make_schedule(config, steps)
    every = range(steps + 3)
    wanted = [rate(config, steps, step) for step in every]
    np.testing.assert_allclose([found(step) for step in every], wanted, atol=1e-6)


BAD = [
    ("learning_rate", -1e-3, "more than 0, at most 10"),
    ("learning_rate", 0.0, "more than 0"),
    ("learning_rate", 1e308, "at most 10"),
    ("learning_rate", math.nan, "more than 0"),
    ("warmup", -0.1, "0 or more, at most 1"),
    ("warmup", 1.1, "0 or more, at most 1"),
    ("final", -0.1, "0 or more, at most 1"),
    ("final", 2.0, "0 or more, at most 1"),
    ("clip_norm", 0.0, "more than 0"),
    ("clip_norm", -1.0, "more than 0"),
    ("clip_norm", math.inf, "at most 1e+30"),
    ("weight_decay", -0.1, "0 or more"),
    ("weight_decay", 1e308, "0 or more, at most 100"),
    ("b1", 1.0, "at most 0.99999994"),
    ("b1", -0.1, "0 or more"),
    ("b2", 1 - 1e-9, "at most 0.99999994"),  # 1 in float32: the bias correction divides by 0
    ("b2", math.nan, "0 or more"),
    ("eps", 0.0, "1.17549e-38 or more, at most 1"),
    ("eps", -1e-8, "1.17549e-38 or more"),
    ("eps", 1e-40, "1.17549e-38 or more"),
    ("eps_root", -1e-8, "1.17549e-38 or more"),
    ("eps_root", 1e-40, "1.17549e-38 or more"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD, ids=lambda part: str(part))
def test_a_number_that_would_ruin_the_run_is_refused(field, value, allowed):
    with pytest.raises(InputError) as caught:
        OptimizerConfig(**{"learning_rate": 0.01, field: value})
    text = str(caught.value)
    assert text.startswith(f"{field} is {value!r}; allowed: ")
    assert allowed in text


def test_a_refused_number_is_named_as_it_stands_in_the_config():
    with pytest.raises(InputError, match=r"^config\.optimizer\.b1 is 1\.5; allowed: 0 or more"):
        settings(OptimizerConfig, {"learning_rate": 0.01, "b1": 1.5}, "config.optimizer")


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 10.0, "warmup": 1.0, "final": 1.0, "weight_decay": 0.1},
        {"learning_rate": 1e-9, "warmup": 0.0, "final": 0.0, "b1": 0.0, "b2": 0.0},
        {"learning_rate": 0.5, "weight_decay": 2.0, "b2": 1 - 2**-24, "eps": 1.0},
        {"learning_rate": 1, "clip_norm": 1e30, "eps": 2.0**-126, "eps_root": 2.0**-126},
    ],
)
def test_the_ends_of_every_range_are_allowed(fields):
    config = settings(OptimizerConfig, fields)
    params = {"kernel": jnp.ones(2)}
    optimizer = make_optimizer(config, lambda _: jnp.asarray(config.learning_rate))
    updates, _ = optimizer.update({"kernel": jnp.zeros(2)}, optimizer.init(params), params)
    assert np.isfinite(updates["kernel"]).all()


def test_a_range_says_what_it_allows():
    require_in("x", 0.0, Range(0, 1))
    for value, allowed in ((1.5, Range(0, 1)), (0.0, Range(0, 1, above=True))):
        with pytest.raises(InputError, match=f"x is {value}; allowed: .*, at most 1$"):
            require_in("x", value, allowed)
    with pytest.raises(InputError, match=r"x is inf; allowed: 2 or more$"):
        require_in("x", math.inf, Range(2))


def squares(params, frozen, batch):
    """Row `b` costs `weight_b (w . (token_b, 1) - target_b)^2`; rows count their weights."""
    x = jnp.concatenate([batch.tokens, jnp.ones_like(batch.tokens)], axis=1).astype(jnp.float32)
    error = x @ params["w"] - batch.targets[:, 0]
    return Mean((batch.weight * error**2).sum(), batch.weight.sum()), {
        "error": Mean((batch.weight * error).sum(), batch.weight.sum())
    }


def rows(weights) -> Batch:
    rng = np.random.default_rng(1)
    tokens, targets = rng.integers(1, 5, (2, len(weights), 1)).astype(np.int32)
    return Batch(tokens, targets, tokens, tokens, tokens, np.asarray(weights, np.float32))


def reference(w, batch):
    """Loss, mean error and gradient of `squares`, in float64."""
    x = np.concatenate([batch.tokens, np.ones_like(batch.tokens)], axis=1).astype(np.float64)
    error, weight = x @ w - batch.targets[:, 0], batch.weight.astype(np.float64)
    slope = 2 * (weight * error) @ x / weight.sum()
    return (weight * error**2).sum() / weight.sum(), (weight * error).sum() / weight.sum(), slope


@pytest.mark.parametrize("microbatches", [1, 2, 4])
@pytest.mark.parametrize(
    "weights", [(0.5, 0, 0, 0), (0.1, 0.02, 0.3, 0.05), (2, 1, 0.5, 3)], ids=str
)
def test_a_step_divides_by_the_sum_of_the_weights_however_small(weights, microbatches):
    batch, start = rows(weights), np.array([0.5, -1.0])
    optimizer = optax.sgd(0.25)
    state = init_state({"w": jnp.asarray(start, jnp.float32)}, optimizer, 0)
    after, metrics = update_step(squares, optimizer, microbatches)(state, {}, batch)
    loss, error, slope = reference(start, batch)
    np.testing.assert_allclose(start - after.params["w"], 0.25 * slope, rtol=1e-5)
    found = fetch_metrics(metrics)
    np.testing.assert_allclose([found["loss"], found["error"]], [loss, error], rtol=1e-5)
    np.testing.assert_allclose(found["grad_norm"], np.linalg.norm(slope), rtol=1e-5)
    assert int(after.step) == 1


def test_rows_are_dealt_to_microbatches_like_cards():
    def product(params, frozen, batch):
        """Only rows that meet in a microbatch are multiplied."""
        assert batch.tokens.shape == (2, 1)
        return Mean(params["w"] * jnp.prod(batch.weight), jnp.ones(())), {}

    optimizer = optax.sgd(1.0)
    state = init_state({"w": jnp.zeros(())}, optimizer, 0)
    after, _ = update_step(product, optimizer, 2)(state, {}, rows([2, 3, 5, 7]))
    assert float(after.params["w"]) == -(2 * 5 + 3 * 7) / 2


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_batch_that_counts_nothing_has_no_gradient(microbatches):
    optimizer = optax.adam(0.1)
    state = init_state({"w": jnp.ones(2)}, optimizer, 0)
    after, metrics = update_step(squares, optimizer, microbatches)(state, {}, rows([0, 0]))
    np.testing.assert_array_equal(after.params["w"], state.params["w"])
    assert fetch_metrics(metrics) == {"loss": 0.0, "error": 0.0, "grad_norm": 0.0}


def test_nothing_counted_does_not_hide_nan():
    nan, zero = np.float32(np.nan), np.float32(0)
    assert np.isnan(fetch_metrics({"loss": Mean(nan, zero)})["loss"])
    assert float(Mean(np.float32(3), np.float32(0.25)).value) == 12.0
    assert float(jax.grad(lambda c: Mean(jnp.float32(3), c).value)(2.0)) == -0.75

"""Weights, microbatches and the memory of the exact meta-gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hen_jax.core.errors import InputError
from hen_jax.core.types import Mean
from hen_jax.meta.gradients import meta_gradient
from hen_jax.meta.inner import InnerLoop, descend
from hen_jax.meta.losses import mean_loss, rectified, weighted


def test_reweighting_gives_normalised_positive_inner_products():
    directions = np.array([[1.0, 0.0], [0.5, 2.0], [-1.0, 0.3], [0.0, 1.0]], "float32")
    clean = np.array([1.0, 0.5], "float32")

    inner_loss = weighted(lambda theta, batch: batch @ theta, lambda eta, batch: eta)
    inner = InnerLoop(inner_loss, optax.sgd(0.1), steps=1, repeat=True)
    meta = jax.jit(meta_gradient(inner, lambda theta, eta, query: query @ theta))
    found = meta(jnp.zeros(2), jnp.zeros(4), directions, clean)

    positive = np.maximum(directions @ clean, 0)
    weights = rectified(found.eta)
    np.testing.assert_allclose(weights, positive / positive.sum(), rtol=1e-6)
    assert weights[2] == 0  # it conflicts with the clean direction
    assert not rectified(jnp.ones(3)).any()


def mean_of_rows(theta, eta, batch):
    weight = jax.nn.sigmoid(eta["quality"])[batch["row"]]
    error = (jnp.tanh(batch["x"] @ theta["w"])[:, 0] - batch["y"]) ** 2
    return Mean(jnp.sum(weight * error), jnp.sum(weight)), {}


def test_microbatches_change_neither_the_loss_nor_the_exact_meta_gradient():
    keys = jax.random.split(jax.random.key(0), 3)
    batches = {
        "x": jax.random.normal(keys[0], (2, 8, 3)),
        "y": jax.random.normal(keys[1], (2, 8)),
        "row": jnp.tile(jnp.arange(8), (2, 1)),
    }
    query = jax.tree.map(lambda x: x[0], batches)
    theta, eta = {"w": jax.random.normal(keys[2], (3, 1))}, {"quality": jnp.linspace(-1, 1, 8)}

    def run(microbatches):
        scalar = mean_loss(mean_of_rows, microbatches)
        inner = InnerLoop(scalar, optax.sgd(0.5), steps=2)
        return jax.jit(meta_gradient(inner, scalar))(theta, eta, batches, query)

    whole, parts = run(1), run(4)
    for found, expected in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="divisor"):
        run(3)


# A stack of attention blocks with a low-rank adapter on the values, only ever compiled.

LAYERS, WIDTH, LENGTH, ROWS, WORDS = 4, 64, 128, 8, 512


def nll(adapter, base, tokens):
    def block(x, layer):
        scores = jnp.einsum("btd,bsd->bts", x @ layer["q"], x) / WIDTH**0.5
        mix = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((LENGTH, LENGTH))) > 0, scores, -1e9))
        value = x @ layer["v"] + (x @ layer["a"]) @ layer["b"]
        x = x + mix @ value
        return x + jax.nn.silu(x @ layer["up"]) @ layer["down"], None

    x = base["embedding"][tokens]
    x, _ = jax.lax.scan(jax.checkpoint(block), x, base["blocks"] | adapter)
    logits = jax.nn.log_softmax(x @ base["embedding"].T)
    return -jnp.take_along_axis(logits, jnp.roll(tokens, -1, 1)[..., None], -1)[..., 0].mean(1)


def temporaries(mode, steps=2, microbatches=1):
    def run(adapter, base, eta, batches, query):
        def loss(adapter, eta, tokens):
            errors = nll(adapter, base, tokens)
            return Mean(jnp.sum(errors), jnp.float32(ROWS // microbatches)), {}

        optimizer = lambda eta: optax.chain(optax.scale_by_adam(eps_root=1e-8), descend(eta))  # noqa: E731
        inner = InnerLoop(mean_loss(loss, microbatches), optimizer, steps)
        outer = lambda adapter, eta, tokens: nll(adapter, base, tokens).mean()  # noqa: E731
        found = meta_gradient(inner, outer, mode)(adapter, eta, batches, query)
        return found.value, found.theta, found.eta

    def floats(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    square, wide = (LAYERS, WIDTH, WIDTH), (LAYERS, WIDTH, 4 * WIDTH)
    blocks = {"q": square, "v": square, "up": wide, "down": (LAYERS, 4 * WIDTH, WIDTH)}
    base = {
        "embedding": floats(WORDS, WIDTH),
        "blocks": {name: floats(*shape) for name, shape in blocks.items()},
    }
    adapter = {"a": floats(LAYERS, WIDTH, 4), "b": floats(LAYERS, 4, WIDTH)}
    rates = jax.tree.map(lambda leaf: floats(), adapter)
    batches = jax.ShapeDtypeStruct((steps, ROWS, LENGTH), jnp.int32)
    query = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)
    lowered = jax.jit(run).lower(adapter, base, rates, batches, query)
    compiled = lowered.compile({"xla_backend_optimization_level": "0"})
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


@pytest.mark.slow  # compiles each mode
def test_memory_of_the_exact_gradient():
    first_order, mixflow, unroll = map(temporaries, ("first_order", "mixflow", "unroll"))
    split = temporaries("mixflow", steps=8, microbatches=4)
    print(
        f"temporaries over those of first order: mixflow {mixflow / first_order:.2f}, "
        f"unroll {unroll / first_order:.2f}, mixflow with 8 steps of 4 microbatches "
        f"{split / first_order:.2f}"
    )
    assert mixflow <= unroll
    assert mixflow <= 1.5 * first_order
    assert split <= mixflow


def test_memory_grows_by_one_trainable_tree_per_inner_step_also_with_adam():
    theta = {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32)}
    tree = 4 * 256 * 256

    def needed(steps, mode):
        def run(theta, eta, batches, query):
            error = lambda theta, eta, x: jnp.mean((jnp.tanh(x @ theta["w"]) - x) ** 2)  # noqa: E731
            adam = lambda eta: optax.chain(optax.scale_by_adam(eps_root=1e-8), descend(eta))  # noqa: E731
            found = meta_gradient(InnerLoop(error, adam, steps), error, mode)
            return found(theta, eta, batches, query)[:3]

        rows = jax.ShapeDtypeStruct((steps, 2, 256), jnp.float32)
        eta, query = (
            {"w": jax.ShapeDtypeStruct((), jnp.float32)},
            jax.ShapeDtypeStruct((2, 256), jnp.float32),
        )
        analysis = jax.jit(run).lower(theta, eta, rows, query).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    growth = {
        mode: (needed(8, mode) - needed(2, mode)) / 6 / tree for mode in ("mixflow", "unroll")
    }
    print(f"trainable trees per inner step: {growth}")
    assert growth["mixflow"] < 1.05
    assert growth["unroll"] > 2

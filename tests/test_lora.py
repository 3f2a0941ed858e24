"""Low-rank adapters against numpy: the factor, the layer, and what merging makes of them."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from hen_jax.adapters.lora import check_targets, merge_adapter, merge_rounding, zero_adapter
from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.models.config import LoraConfig
from hen_jax.models.layers import Linear, side_by_side


@pytest.mark.parametrize(
    ("rank", "alpha", "stabilised", "scale"),
    [(16, 32.0, False, 2.0), (16, 32.0, True, 8.0), (4, 1.0, False, 0.25), (9, 6.0, True, 2.0)],
)
def test_the_factor_is_alpha_over_the_rank_or_over_its_root(rank, alpha, stabilised, scale):
    assert LoraConfig(rank, alpha, rank_stabilised=stabilised).scale == scale


def filled(lora: LoraConfig, bias: bool, seed: int) -> Linear:
    """A layer of random numbers, also where a new one has zeros."""
    layer = Linear(jax.random.key(seed), (5, 3), ("embed", "mlp"), lora, jnp.dtype("float32"), bias)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), layer)


def expected(layer: Linear, x: np.ndarray, scale: float) -> np.ndarray:
    kernel, a, b = (np.asarray(p[...]) for p in (layer.kernel, layer.lora_a, layer.lora_b))
    y = x @ kernel + scale * (x @ a) @ b
    return y if layer.bias is None else y + np.asarray(layer.bias[...])


def test_a_layer_adds_the_scaled_low_rank_product_and_its_bias():
    x = np.random.default_rng(9).normal(size=(1, 2, 5)).astype(np.float32)
    layers = [
        filled(LoraConfig(4, 6.0, rank_stabilised=True), True, 0),
        filled(LoraConfig(2, 1.0), False, 1),
    ]
    wanted = [expected(one, x, scale) for one, scale in zip(layers, (3.0, 0.5), strict=True)]
    for one, y in zip(layers, wanted, strict=True):
        np.testing.assert_allclose(one(jnp.asarray(x)), y, rtol=1e-4, atol=1e-5)
    for found, y in zip(side_by_side(jnp.asarray(x), *layers), wanted, strict=True):
        np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)


def base_and_adapter(dtype):
    rng = np.random.default_rng(3)

    def leaf(*shape):
        return rng.normal(size=shape).astype(np.float32)

    base = {
        "blocks": {
            "q": {"kernel": leaf(2, 4, 3).astype(dtype)},
            "norm": {"scale": leaf(2, 4).astype(dtype)},
        },
        "score": {"kernel": leaf(4, 1).astype(dtype)},
    }
    adapter = {
        "blocks": {"q": {"lora_a": leaf(2, 4, 2), "lora_b": leaf(2, 2, 3)}},
        "score": {"kernel": leaf(4, 1)},
    }
    return base, adapter


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_merging_adds_to_each_layer_and_takes_over_what_trained_beside(dtype):
    base, adapter = base_and_adapter(dtype)
    merged = flatten(merge_adapter(base, adapter, 1.5))
    q, low = base["blocks"]["q"]["kernel"], adapter["blocks"]["q"]
    exact = q.astype(np.float64) + 1.5 * np.einsum("lir,lro->lio", low["lora_a"], low["lora_b"])
    assert merged.keys() == flatten(base).keys()
    assert {leaf.dtype for leaf in merged.values()} == {np.dtype(dtype)}
    gap = 2.0**-22 if dtype == np.float32 else 2.0**-8
    np.testing.assert_allclose(merged["blocks/q/kernel"].astype(np.float64), exact, rtol=2 * gap)
    np.testing.assert_array_equal(merged["blocks/norm/scale"], base["blocks"]["norm"]["scale"])
    np.testing.assert_array_equal(merged["score/kernel"], adapter["score"]["kernel"].astype(dtype))
    largest = max(
        np.abs(exact - merged["blocks/q/kernel"].astype(np.float64)).max(),
        np.abs(adapter["score"]["kernel"] - merged["score/kernel"].astype(np.float64)).max(),
    )
    assert merge_rounding(base, adapter, 1.5) == pytest.approx(largest, rel=1e-3, abs=1e-6)


def test_an_adapter_of_zeros_keeps_its_a_and_changes_nothing():
    base, adapter = base_and_adapter(np.float32)
    zero = flatten(zero_adapter(adapter))
    np.testing.assert_array_equal(zero["blocks/q/lora_a"], adapter["blocks"]["q"]["lora_a"])
    assert not np.asarray(zero["blocks/q/lora_b"]).any()
    np.testing.assert_array_equal(zero["score/kernel"], adapter["score"]["kernel"])
    merged = merge_adapter(base, zero_adapter(adapter), 1.5)
    np.testing.assert_array_equal(merged["blocks"]["q"]["kernel"], base["blocks"]["q"]["kernel"])


def test_a_target_without_a_layer_is_named():
    _, adapter = base_and_adapter(np.float32)
    check_targets(LoraConfig(2, 1.0, ("q",)), adapter)
    with pytest.raises(InputError, match=r"adapter targets \['qq', 'z'\] match no layer"):
        check_targets(LoraConfig(2, 1.0, ("qq", "q", "z")), adapter)

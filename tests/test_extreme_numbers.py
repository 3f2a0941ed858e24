"""Numbers at the ends of their ranges: kept, or refused in one line, never turned into others."""

import json
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from tiny_families import random_leaves
from tiny_model import CONFIG, LORA

from hen_jax.adapters.lora import merge_adapter
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.rounding import rounded
from hen_jax.core.trees import flatten, unflatten
from hen_jax.io import hf, peft
from hen_jax.models.config import LoraConfig
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.logits import COLDEST, HOTTEST, Sampling, draw, row_sampling
from hen_jax.verbs.generate.generate import GenerateRequest, generate_replies, open_weights


@pytest.mark.parametrize(
    ("stored", "dtype", "largest", "lost"),
    [
        (np.float32, np.float16, 65519.0, 65520.0),
        (np.float64, np.float16, 65519.0, 65520.0),
        (ml_dtypes.bfloat16, np.float16, 65280.0, 65536.0),
        (np.float32, ml_dtypes.bfloat16, 3.39e38, 3.3999e38),
    ],
)
def test_a_finite_number_is_rounded_or_refused(stored, dtype, largest, lost):
    for sign in (1, -1):
        kept = rounded(np.array([[0.0, sign * largest]], stored), np.dtype(dtype), "w")
        assert kept.dtype == dtype
        assert np.isfinite(kept.astype(np.float32)).all()
        with pytest.raises(InputError, match=f"w holds .* {np.dtype(dtype).name} cannot hold"):
            rounded(np.array([[0.0, sign * lost]], stored), np.dtype(dtype), "w")
        with pytest.raises(InputError, match="w holds"):
            rounded(np.array([math.nan, sign * lost], stored), np.dtype(dtype), "w")
    strange = np.array([math.inf, -math.inf, math.nan], stored)
    same = rounded(strange, np.dtype(dtype), "w").astype(np.float32)
    np.testing.assert_array_equal(same, strange.astype(np.float32))
    assert rounded(np.zeros((0, 3), stored), np.dtype(dtype), "w").shape == (0, 3)


def test_a_weight_beyond_float16_is_named_on_the_way_in_and_out(tmp_path):
    params = flatten(random_leaves(CONFIG)[0])
    params["blocks/mlp/down/kernel"] = params["blocks/mlp/down/kernel"].copy()
    params["blocks/mlp/down/kernel"][1, 2, 3] = -1e5
    named = r"model\.layers\.1\.mlp\.down_proj\.weight holds -100000, which float16 cannot hold"
    with pytest.raises(InputError, match=named):
        hf.write_model(tmp_path / "half", CONFIG, unflatten(params), dtype="float16")
    assert list(tmp_path.iterdir()) == []
    hf.write_model(tmp_path / "whole", CONFIG, unflatten(params))
    with pytest.raises(InputError, match=named):
        hf.read_params(tmp_path / "whole", CONFIG, "float16")
    with pytest.raises(InputError, match=named):
        hf.write_model(
            tmp_path / "half", CONFIG, hf.read_tensors(tmp_path / "whole", CONFIG), dtype="float16"
        )
    hf.read_params(tmp_path / "whole", CONFIG, "bfloat16")


def test_an_adapter_beyond_float16_is_named(tmp_path):
    base, adapter = random_leaves(CONFIG, LORA)
    leaves = flatten(adapter)
    leaves["blocks/attn/q/lora_b"] = leaves["blocks/attn/q/lora_b"] * 1e6
    with pytest.raises(InputError, match=r"layers\.0\.self_attn\.q_proj\.lora_B.* float16"):
        peft.write_adapter(
            tmp_path / "a", CONFIG, LORA, unflatten(leaves), base_model="o/b", dtype="float16"
        )
    half = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), base)
    merge_adapter(half, adapter, LORA.scale)
    with pytest.raises(InputError, match="blocks/attn/q/kernel with its adapter holds"):
        merge_adapter(half, unflatten(leaves), LORA.scale)


def test_merged_weights_beyond_the_dtype_of_a_generation_are_named(tmp_path):
    base, adapter = random_leaves(CONFIG, LORA)
    leaves = flatten(base)
    leaves["blocks/attn/q/kernel"] = np.full_like(leaves["blocks/attn/q/kernel"], 3.4e38)
    hf.write_model(tmp_path / "m", CONFIG, unflatten(leaves))
    peft.write_adapter(tmp_path / "a", CONFIG, LORA, adapter, base_model="o/b")
    request = GenerateRequest(tmp_path / "m", ("x",), tmp_path / "a", dtype="bfloat16")
    with pytest.raises(InputError, match=r"blocks/attn/q/kernel holds 3\.4e\+38, which bfloat16"):
        open_weights(request, CONFIG, 1)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf, 1e308, 1e-300])
def test_an_alpha_that_trains_nothing_is_refused(alpha):
    with pytest.raises(InputError, match="alpha is"):
        LoraConfig(4, alpha)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1.0), "rank"),
        ((-2, 1.0), "rank"),
        ((2, 4.0, ()), "targets"),
        ((2, 4.0, ("q", "q")), "q"),
    ],
)
def test_an_adapter_of_nothing_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        LoraConfig(*arguments)


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("alpha", [0, -6.0, 1e-9])
def test_a_peft_adapter_of_any_alpha_is_read_as_peft_applies_it(tmp_path, alpha, stabilised):
    _, adapter = random_leaves(CONFIG, LORA)
    lora = LoraConfig(LORA.rank, LORA.alpha, rank_stabilised=stabilised)
    peft.write_adapter(tmp_path / "a", CONFIG, lora, adapter, base_model="o/b")
    (tmp_path / "a" / RECORD).unlink()  # as if PEFT had written it
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": alpha}))
    read, leaves = peft.read_adapter(tmp_path / "a", CONFIG)
    scale = alpha / (LORA.rank**0.5 if stabilised else LORA.rank)
    expected, found = flatten(adapter), flatten(leaves)
    for name, b in expected.items():
        if name.endswith("lora_b"):
            np.testing.assert_allclose(read.scale * found[name], scale * b, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found[name], b)


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_a_peft_alpha_that_is_no_number_is_refused(tmp_path, alpha):
    _, adapter = random_leaves(CONFIG, LORA)
    peft.write_adapter(tmp_path / "a", CONFIG, LORA, adapter, base_model="o/b")
    (tmp_path / "a" / RECORD).unlink()  # as if PEFT had written it
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": alpha}))
    with pytest.raises(InputError, match="lora_alpha"):
        peft.read_adapter(tmp_path / "a", CONFIG)


@pytest.mark.parametrize("temperature", [1e-40, 1e-12, -1.0, math.nan, math.inf, 1e39])
def test_a_temperature_that_float32_does_not_hold_is_refused(temperature):
    with pytest.raises(InputError, match=r"temperature is .* give 0 \(greedy\)"):
        Sampling(temperature=temperature)


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.5, math.nan])
def test_a_top_p_that_keeps_nothing_is_refused(top_p):
    with pytest.raises(InputError, match="top_p is"):
        Sampling(top_p=top_p)


@pytest.mark.parametrize("temperature", [COLDEST, HOTTEST])
def test_draws_are_numbers_at_both_ends(temperature):
    logits = jnp.asarray([[900.0, -900.0, 899.0, 0.0]] * 8)
    rows, marks = row_sampling([Sampling(temperature)] * 8, 0), jnp.zeros(logits.shape, jnp.uint8)
    drawn = draw(logits, rows, marks, jax.random.uniform(jax.random.key(0), (8, 2)))
    assert np.isfinite(drawn.log_probs).all()
    assert np.isfinite(drawn.sampling_log_probs).all()
    if temperature == COLDEST:
        assert set(drawn.tokens.tolist()) == {0}


@pytest.mark.parametrize("count", [0, -5])
def test_no_new_token_is_refused(count):
    with pytest.raises(InputError, match="max_new_tokens"):
        Generating(count, stop=())


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_a_seed_that_would_be_cut_to_32_bits_is_refused(tmp_path, seed):
    with pytest.raises(InputError, match="seed"):
        generate_replies(GenerateRequest(tmp_path, ("hi",), seed=seed))

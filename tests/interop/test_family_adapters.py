"""Adapters of every family beside PEFT: theirs load here and ours there, with equal logits."""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from peft import LoraConfig as TheirLoraConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

sys.path.append(str(Path(__file__).parents[1]))
from tiny_families import CONFIGS, random_leaves

from hen_jax.core.trees import flatten, unflatten
from hen_jax.io import hf, peft
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.models.heads import row_scores

TOKENS = np.random.default_rng(5).integers(1, 96, (2, 24))


@partial(jax.jit, static_argnums=(0, 1))
def ours(config, lora, *trees):
    graphdef = split(abstract(config, lora, Execution(remat="none"))).graphdef
    positions = np.broadcast_to(np.arange(TOKENS.shape[1]), TOKENS.shape)
    segments = np.ones_like(TOKENS)
    model = merge(graphdef, *trees)
    hidden = model.hidden(TOKENS, positions, segments)
    if config.score_head:
        return row_scores(model.score(hidden, segments))
    return model.logits(hidden)


def theirs(model):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TOKENS)).logits.numpy()


def loaded(folder, auto=AutoModelForCausalLM):
    return auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def assert_same(left, right):
    left, right = flatten(left), flatten(right)
    assert left.keys() == right.keys()
    for path, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[path], err_msg=path)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_peft_gives_our_adapters_logits_and_saves_it_unchanged(tmp_path, config):
    lora = LoraConfig(rank=3, alpha=7.0)
    base, adapter = random_leaves(config, lora)
    hf.write_model(tmp_path / "base", config, base)
    peft.write_adapter(tmp_path / "a", config, lora, adapter, base_model=str(tmp_path / "base"))
    model = PeftModel.from_pretrained(loaded(tmp_path / "base"), tmp_path / "a")
    found = theirs(model)
    assert np.abs(found - ours(config, lora, base, adapter)).max() <= 1e-4
    assert np.abs(found - ours(config, None, base)).max() > 1e-2
    model.save_pretrained(tmp_path / "again")
    read, leaves = peft.read_adapter(tmp_path / "again", config)
    assert read == lora
    assert_same(leaves, adapter)


@pytest.mark.parametrize("family", ["qwen2", "phi3"])
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_some_targets_and_rank_stabilised_scaling(tmp_path, family, rank_stabilised):
    config = CONFIGS[family]
    lora = LoraConfig(4, 6.0, ("q", "v", "up", "down"), rank_stabilised)
    base, adapter = random_leaves(config, lora)
    hf.write_model(tmp_path / "base", config, base)
    peft.write_adapter(tmp_path / "a", config, lora, adapter, base_model=str(tmp_path / "base"))
    model = PeftModel.from_pretrained(loaded(tmp_path / "base"), tmp_path / "a")
    assert np.abs(theirs(model) - ours(config, lora, base, adapter)).max() <= 1e-4
    read, leaves = peft.read_adapter(tmp_path / "a", config)
    assert abs(read.alpha - lora.alpha) < 1e-6
    assert dataclasses.replace(read, alpha=lora.alpha) == lora
    assert_same(leaves, adapter)


@pytest.mark.parametrize("family", ["llama", "phi3"])
@pytest.mark.parametrize("rslora", [False, True])
def test_their_adapter_with_patterns_gives_their_logits_here(tmp_path, family, rslora):
    config = CONFIGS[family]
    base, _ = random_leaves(config)
    hf.write_model(tmp_path / "base", config, base)
    attention = ["qkv_proj"] if family == "phi3" else ["q_proj", "k_proj"]
    settings = TheirLoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=[*attention, "down_proj"],
        rank_pattern={"layers.1.mlp.down_proj": 6, attention[0]: 2},
        alpha_pattern={"down_proj": 5, "layers.2.*_proj": 3},
        use_rslora=rslora,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(loaded(tmp_path / "base"), settings)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(tmp_path / "a")
    lora, adapter = peft.read_adapter(tmp_path / "a", config)
    assert lora.rank == 6
    assert np.abs(theirs(model) - ours(config, lora, base, adapter)).max() <= 1e-4
    # What was levelled on the way in goes out again with the same product.
    peft.write_adapter(tmp_path / "b", config, lora, adapter, base_model="x")
    again = PeftModel.from_pretrained(loaded(tmp_path / "base"), tmp_path / "b")
    assert np.abs(theirs(model) - theirs(again)).max() <= 1e-4


@pytest.mark.parametrize(
    "targets",
    [
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 2]},
        {"target_modules": r"model\.layers\.[12]\..*(v|up)_proj"},
        {"target_modules": "all-linear", "exclude_modules": ["o_proj", "layers.1.mlp.up_proj"]},
    ],
)
def test_their_adapter_of_some_modules_gives_their_logits_here(tmp_path, targets):
    config = CONFIGS["llama"]
    base, _ = random_leaves(config)
    hf.write_model(tmp_path / "base", config, base)
    model = get_peft_model(loaded(tmp_path / "base"), TheirLoraConfig(r=4, **targets))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(tmp_path / "a")
    lora, adapter = peft.read_adapter(tmp_path / "a", config)
    assert np.abs(theirs(model) - ours(config, lora, base, adapter)).max() <= 1e-4
    assert np.abs(theirs(model) - ours(config, None, base)).max() > 1e-2


def test_a_reward_adapter_takes_its_head_along(tmp_path):
    config = dataclasses.replace(CONFIGS["qwen2"], score_head=True)
    lora = LoraConfig(rank=3, alpha=7.0)
    base, adapter = random_leaves(config, lora)
    source = tmp_path / "source"
    source.mkdir()
    (source / "generation_config.json").write_text('{"pad_token_id": 0}')
    hf.write_model(tmp_path / "base", config, base, source_folder=source)
    trained = {"kernel": base["score"]["kernel"] + 1}
    adapter = unflatten(flatten(adapter)) | {"score": trained}
    peft.write_adapter(tmp_path / "a", config, lora, adapter, base_model=None, source_folder=source)
    plain = loaded(tmp_path / "base", AutoModelForSequenceClassification)
    model = PeftModel.from_pretrained(plain, tmp_path / "a")
    body = {name: tree for name, tree in base.items() if name != "score"}
    expected = ours(config, lora, body, adapter)
    assert np.abs(theirs(model)[:, 0] - expected).max() <= 1e-4
    model.save_pretrained(tmp_path / "again")
    read, leaves = peft.read_adapter(tmp_path / "again", config)
    assert read == lora
    assert_same(leaves, adapter)

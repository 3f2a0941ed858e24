"""Tiny Llamas: what we write loads there, and what they write loads here, with equal results."""

import dataclasses

import numpy as np
import pytest
import torch
from peft import LoraConfig as TheirLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hen_jax.adapters.lora import merge_adapter
from hen_jax.core.files import read_json
from hen_jax.core.trees import combine, flatten
from hen_jax.io import hf, peft
from hen_jax.models.config import DecoderConfig, LoraConfig, RopeScaling

PLAIN = DecoderConfig(
    family="llama",
    vocab_size=96,
    width=32,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=48,
    max_length=256,
    norm_eps=1e-5,
    rope_theta=1e4,
)
SCALED = dataclasses.replace(
    PLAIN, tied_head=False, head_dim=12, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16)
)
LORA = LoraConfig(rank=4, alpha=10.0)
TOKENS = np.random.default_rng(5).integers(0, 96, (2, 40))


def their_logits(model):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TOKENS)).logits.numpy()


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("config", [PLAIN, SCALED], ids=["tied", "untied, rope scaled"])
def test_our_folder_loads_there_with_our_logits(tmp_path, config, forward, random_leaves):
    base, _ = random_leaves(config)
    hf.write_model(tmp_path / "m", config, base, max_shard_bytes=20_000)
    assert (tmp_path / "m" / "model.safetensors.index.json").exists()
    found = their_logits(loaded(tmp_path / "m"))
    assert np.abs(found - forward(config, base, TOKENS)).max() <= 1e-4


def test_their_folder_loads_here_and_goes_back_bit_for_bit(tmp_path, forward):
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs")
    ours = hf.read_config(tmp_path / "theirs")
    params = hf.read_params(tmp_path / "theirs", ours)
    hf.write_model(tmp_path / "back", ours, params, source_folder=tmp_path / "theirs")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert back.dtype == torch.bfloat16
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    wide = hf.read_params(tmp_path / "theirs", ours, dtype="float32")
    found = forward(ours, wide, TOKENS)
    assert np.abs(found - their_logits(model.float())).max() <= 1e-4


@pytest.mark.parametrize("lora", [LORA, LoraConfig(2, 3.5, ("v", "gate", "down"))])
def test_peft_loads_our_adapter_with_our_logits(tmp_path, lora, forward, random_leaves):
    base, adapter = random_leaves(SCALED, lora)
    hf.write_model(tmp_path / "base", SCALED, base)
    peft.write_adapter(
        tmp_path / "adapter", SCALED, lora, adapter, base_model=str(tmp_path / "base")
    )
    model = PeftModel.from_pretrained(loaded(tmp_path / "base"), tmp_path / "adapter")
    expected = forward(SCALED, combine(base, adapter), TOKENS, lora)
    found = their_logits(model)
    assert np.abs(found - expected).max() <= 1e-4
    assert np.abs(found - forward(SCALED, base, TOKENS)).max() > 1e-2

    # Saved again by PEFT, it reads back as the same settings and, bit for bit, the same leaves.
    model.save_pretrained(tmp_path / "again")
    read, leaves = peft.read_adapter(tmp_path / "again", SCALED)
    assert read == lora
    ours = flatten(adapter)
    assert flatten(leaves).keys() == ours.keys()
    assert all(np.array_equal(leaf, ours[path]) for path, leaf in flatten(leaves).items())


def test_our_adapter_config_has_exactly_the_keys_peft_writes(tmp_path, random_leaves):
    base, adapter = random_leaves(PLAIN, LORA)
    hf.write_model(tmp_path / "base", PLAIN, base)
    peft.write_adapter(tmp_path / "ours", PLAIN, LORA, adapter, base_model="x")
    settings = TheirLoraConfig(r=4, lora_alpha=10, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(loaded(tmp_path / "base"), settings)
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = (
        read_json(tmp_path / folder / "adapter_config.json") for folder in ("ours", "theirs")
    )
    assert ours.keys() == theirs.keys()
    free = {"base_model_name_or_path", "peft_version", "target_modules"}
    assert {k: ours[k] for k in ours if k not in free} == {
        k: theirs[k] for k in theirs if k not in free
    }
    assert len(get_peft_model_state_dict(model)) == 2 * PLAIN.layers


def test_the_merged_export_gives_the_adapted_logits(tmp_path, forward, random_leaves):
    base, adapter = random_leaves(SCALED, LORA)
    merged = merge_adapter(base, adapter, LORA.scale)
    hf.write_model(tmp_path / "merged", SCALED, merged)
    expected = forward(SCALED, combine(base, adapter), TOKENS, LORA)
    assert np.abs(their_logits(loaded(tmp_path / "merged")) - expected).max() <= 1e-4

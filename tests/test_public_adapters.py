"""Adapters as public tools write them are read, with the factor that PEFT gives each module."""

import json
import re

import numpy as np
import public_adapters as adapters
import pytest
from safetensors.numpy import save_file
from tiny_model import CONFIG

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.io import peft

SIZES = {
    "q_proj": (CONFIG.width, CONFIG.heads * CONFIG.head_dim),
    "k_proj": (CONFIG.width, CONFIG.kv_heads * CONFIG.head_dim),
    "v_proj": (CONFIG.width, CONFIG.kv_heads * CONFIG.head_dim),
    "o_proj": (CONFIG.heads * CONFIG.head_dim, CONFIG.width),
    "gate_proj": (CONFIG.width, CONFIG.mlp_width),
    "up_proj": (CONFIG.width, CONFIG.mlp_width),
    "down_proj": (CONFIG.mlp_width, CONFIG.width),
}


def written(folder, adapter):
    """The folder of the adapter, and each module's product with PEFT's factor."""
    random, tensors, products = np.random.default_rng(0), {}, {}
    for layer in adapter.layers:
        for module in adapter.modules:
            part = "mlp" if module in adapters.LINEAR[4:] else "self_attn"
            name = f"model.layers.{layer}.{part}.{module}"
            rank, alpha = (
                _by_pattern(adapter.config, patterns, plain, name)
                for patterns, plain in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
            )
            size_in, size_out = SIZES[module]
            down, up = (
                random.standard_normal(shape).astype(np.float32)
                for shape in ((rank, size_in), (size_out, rank))
            )
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = up
            root = rank**0.5 if adapter.config.get("use_rslora") else rank
            products[layer, module] = alpha / root * (up @ down).T
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(adapter.config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return products


def _by_pattern(config, patterns, plain, name):
    found = [
        value
        for key, value in (config.get(patterns) or {}).items()
        if re.fullmatch(rf"(.*\.)?({key})", name)
    ]
    return found[0] if found else config[plain]


@pytest.mark.parametrize("name", adapters.READ)
def test_the_adapter_of_a_public_tool_is_read(tmp_path, name):
    products = written(tmp_path / "a", adapters.READ[name])
    lora, adapter = peft.read_adapter(tmp_path / "a", CONFIG)
    leaves = flatten(adapter)
    changed = set()
    for path, down in leaves.items():
        if not path.endswith("/lora_a"):
            continue
        module = f"{path.split('/')[-2]}_proj"
        found = lora.scale * down @ leaves[path.removesuffix("a") + "b"]
        for layer in range(CONFIG.layers):
            wanted = products.get((layer, module), np.zeros(SIZES[module]))
            np.testing.assert_allclose(
                found[layer].reshape(wanted.shape), wanted, atol=1e-4, err_msg=path
            )
            changed |= {(layer, module)} if wanted.any() else set()
    assert changed == products.keys()


@pytest.mark.parametrize("name", adapters.REFUSED)
def test_what_is_no_plain_adapter_is_refused_by_its_setting(tmp_path, name):
    adapter, setting = adapters.REFUSED[name]
    written(tmp_path / "a", adapter)
    with pytest.raises(InputError, match=f"'{setting}' is"):
        peft.read_adapter(tmp_path / "a", CONFIG)


def test_of_forty_five_public_adapters_nineteen_in_twenty_are_read():
    read, refused = len(adapters.READ), len(adapters.REFUSED)
    assert read + refused >= 45
    assert read / (read + refused) >= 0.95

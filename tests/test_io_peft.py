"""PEFT adapter folders: the round trip is exact, and settings we do not have are refused."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_model import CONFIG

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten, unflatten
from hen_jax.io import names, peft, peft_targets
from hen_jax.models.config import LoraConfig

LORA = LoraConfig(rank=3, alpha=6.0, targets=("q", "o", "down"))


def random_adapter(lora: LoraConfig):
    rng = np.random.default_rng(1)
    shapes = names.tensor_shapes(CONFIG, lora)
    leaves = {p: s for p, s in shapes.items() if p.endswith(("lora_a", "lora_b"))}
    return unflatten({p: rng.standard_normal(s).astype(np.float32) for p, s in leaves.items()})


@pytest.fixture
def folder(tmp_path):
    """As another tool leaves it: without our record, so that a test may change its files."""
    adapter = random_adapter(LORA)
    peft.write_adapter(tmp_path / "a", CONFIG, LORA, adapter, base_model="org/base")
    (tmp_path / "a" / "hen_jax.json").unlink()
    return tmp_path / "a"


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip_is_bit_exact(folder):
    lora, adapter = peft.read_adapter(folder, CONFIG)
    assert lora == LORA
    expected = flatten(random_adapter(LORA))
    found = flatten(adapter)
    assert found.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path], err_msg=path)


def test_names_shapes_and_settings_are_those_of_peft(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.1.mlp.down_proj"
    assert tensors[f"{prefix}.lora_A.weight"].shape == (3, 20)
    assert tensors[f"{prefix}.lora_B.weight"].shape == (16, 3)
    assert len(tensors) == 3 * 2 * 2
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["q_proj", "o_proj", "down_proj"]
    assert (settings["r"], settings["lora_alpha"], settings["use_rslora"]) == (3, 6, False)
    assert settings["base_model_name_or_path"] == "org/base"
    card = (folder / "README.md").read_text()
    assert 'base_model: "org/base"' in card
    assert "base_model:adapter:org/base" in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "'use_dora' is True; only plain LoRA"),
        ({"bias": "all"}, "'bias' is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is .'lm_head'.*score head"),
        ({"task_type": "TOKEN_CLS"}, "'TOKEN_CLS'"),
        ({"rank_pattern": {"q_proj": 8}}, r"q_proj\.lora_A.* has shape \[3, 16\].*\[8, 16\]"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base"),
        ({"warp_drive": 9}, r"'warp_drive' \(9\) is not known"),
        ({"r": None}, "both must be numbers"),
        ({"r": 4}, r"lora_A\.weight has shape \[3, 16\]"),
    ],
)
def test_settings_that_change_the_result_are_refused(folder, change, message):
    edit(folder, **change)
    with pytest.raises(InputError, match=message):
        peft.read_adapter(folder, CONFIG)


def test_settings_without_effect_are_read(folder):
    edit(folder, lora_dropout=0.1, inference_mode=False, peft_version="0.99", rank_pattern=None)
    assert peft.read_adapter(folder, CONFIG)[0] == LORA


def products(lora, adapter, target):
    """`scale A B` of each layer, `[L, in, out]`."""
    leaves = {
        path.split("/")[-2:][1]: leaf for path, leaf in flatten(adapter).items() if target in path
    }
    return lora.scale * leaves["lora_a"] @ leaves["lora_b"]


@pytest.mark.parametrize("stabilised", [False, True])
def test_modules_of_other_rank_and_alpha_keep_their_product(tmp_path, stabilised):
    patterns = {"rank_pattern": {"layers.1.self_attn.q_proj": 5}, "alpha_pattern": {"q_proj": 8}}
    fields = {"r": 3, "lora_alpha": 6, "use_rslora": stabilised, **patterns}
    rng, tensors, expected = np.random.default_rng(0), {}, {"/q/": [], "/down/": []}
    shapes = {"self_attn.q_proj": (24, 16), "mlp.down_proj": (16, 20)}
    for layer in range(2):
        for module, key in zip(shapes, expected, strict=True):
            rank = 5 if layer == 1 and key == "/q/" else 3
            out, width = shapes[module]
            a, b = (rng.standard_normal(s).astype(np.float32) for s in ((rank, width), (out, rank)))
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
            alpha = 8 if key == "/q/" else 6
            scale = alpha / (rank**0.5 if stabilised else rank)
            expected[key].append(scale * (b @ a).T)
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    lora, adapter = peft.read_adapter(tmp_path, CONFIG)
    assert (lora.rank, lora.targets) == (5, ("q", "down"))
    for key, layers in expected.items():
        np.testing.assert_allclose(products(lora, adapter, key), np.stack(layers), atol=1e-5)


@pytest.mark.parametrize("diagonal", [True, False])
def test_an_adapter_of_a_fused_layer_is_one_of_each_part(tmp_path, diagonal):
    config = dataclasses.replace(CONFIG, family="phi3", head_dim=4)
    rng, tensors, whole = np.random.default_rng(0), {}, []
    for layer in range(2):
        a, b = rng.standard_normal((6, 16)), rng.standard_normal((32, 6))
        if diagonal:  # ranks of 2, for q [16], k [8] and v [8]
            b[:16, 2:] = b[16:24, :2] = b[16:24, 4:] = b[24:, :4] = 0
        name = f"base_model.model.model.layers.{layer}.self_attn.qkv_proj"
        stored = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        tensors |= {key: value.astype(np.float32) for key, value in stored.items()}
        whole.append((b @ a).T)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 6, "lora_alpha": 6}))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    lora, adapter = peft.read_adapter(tmp_path, config)
    assert lora == LoraConfig(*((2, 2.0) if diagonal else (6, 6.0)), ("q", "k", "v"))
    for target, span in (("/q/", slice(16)), ("/k/", slice(16, 24)), ("/v/", slice(24, 32))):
        expected = np.stack(whole)[:, :, span]
        np.testing.assert_allclose(products(lora, adapter, target), expected, atol=1e-5)


def test_an_adapter_that_matches_no_layer_is_refused(folder):
    path = folder / "adapter_model.safetensors"
    tensors = {key.replace("_proj", "_dense"): value for key, value in load_file(path).items()}
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"adapts no linear layer of a llama model.*down_dense"):
        peft.read_adapter(folder, CONFIG)


def drop(folder, *parts):
    """Takes the tensors out whose names hold one of `parts`."""
    path = folder / "adapter_model.safetensors"
    kept = {k: v for k, v in load_file(path).items() if not any(part in k for part in parts)}
    save_file(kept, path)


@pytest.mark.parametrize(
    "change",
    [
        {"layers_to_transform": [1]},
        {"layers_to_transform": 1, "layers_pattern": "layers"},
        {"layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
        {"target_modules": r".*layers\.1\..*(q|o|down)_proj"},
        {"target_modules": "all-linear", "exclude_modules": r".*\.layers\.0\..*"},
        {"target_modules": "all-linear", "exclude_modules": ["layers.0.self_attn.q_proj",
         "layers.0.self_attn.o_proj", "layers.0.mlp.down_proj"]},
    ],
)  # fmt: skip
def test_an_adapter_of_some_layers_changes_those(folder, change):
    whole, every = peft.read_adapter(folder, CONFIG)
    drop(folder, "layers.0.")
    with pytest.raises(InputError, match=r"missing weights: .*layers\.0\."):
        peft.read_adapter(folder, CONFIG)
    edit(folder, **change)
    lora, adapter = peft.read_adapter(folder, CONFIG)
    assert lora == whole
    for target in ("/q/", "/o/", "/down/"):
        found, full = (products(lora, tree, target) for tree in (adapter, every))
        np.testing.assert_array_equal(found[1], full[1])
        assert not found[0].any()


def test_tensors_beside_the_targets_are_refused(folder):
    edit(folder, layers_to_transform=[1])
    with pytest.raises(InputError, match=r"leftover weights: .*layers\.0\."):
        peft.read_adapter(folder, CONFIG)
    edit(folder, layers_to_transform=[7])
    with pytest.raises(InputError, match=r"adapts no linear layer .* that its settings name"):
        peft.read_adapter(folder, CONFIG)


def test_fields_of_other_releases_and_tools_are_read(folder):
    mapping = {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True}
    edit(folder, auto_mapping=mapping, task_type=None, enable_lora=None, merge_weights=False)
    assert peft.read_adapter(folder, CONFIG)[0] == LORA
    edit(folder, merge_weights=True)
    with pytest.raises(InputError, match="'merge_weights' is True"):
        peft.read_adapter(folder, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_modules": "(q_proj"}, r"pattern '\(q_proj' of the adapter is none"),
        ({"target_modules": [3]}, "'target_modules' is .3.; give names"),
        ({"layers_to_transform": ["1"]}, "'layers_to_transform' is .*; give layer numbers"),
    ],
)
def test_targets_that_cannot_be_read_are_named(folder, change, message):
    edit(folder, **change)
    with pytest.raises(InputError, match=message):
        peft.read_adapter(folder, CONFIG)


def test_a_pattern_that_searches_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(peft_targets, "MATCH_SECONDS", 0.0)
    with pytest.raises(InputError, match="write the module names out"):
        peft_targets.searched(r".*" * 8 + "x", "model.layers.0" * 50)


def test_a_missing_half_is_named(folder):
    path = folder / "adapter_model.safetensors"
    tensors = dict(load_file(path))
    tensors.pop("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight")
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"missing weights: .*layers\.0.*q_proj\.lora_B"):
        peft.read_adapter(folder, CONFIG)


def test_a_pickled_adapter_is_refused(folder):
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickle"):
        peft.read_adapter(folder, CONFIG)


def test_writing_refuses_what_does_not_fit(tmp_path):
    adapter = random_adapter(LORA)
    out = tmp_path / "a"
    with pytest.raises(InputError, match="leftover weights: blocks/mlp/down"):
        peft.write_adapter(out, CONFIG, LoraConfig(3, 6.0, ("q", "o")), adapter, base_model="b")
    with pytest.raises(InputError, match=r"'lm_head'.* match nothing"):
        peft.write_adapter(out, CONFIG, LoraConfig(3, 6.0, ("lm_head",)), adapter, base_model="b")
    with pytest.raises(InputError, match="has shape"):
        peft.write_adapter(out, CONFIG, LoraConfig(4, 6.0, LORA.targets), adapter, base_model="b")
    assert not out.exists()

"""Between our leaves and Hugging Face's tensors, for every family: each lies where it should."""

import numpy as np
import pytest
from tiny_families import CONFIGS, random_leaves

from hen_jax.core.trees import flatten
from hen_jax.io import layout


def loaded(tensors):
    return {tensor.name: tensor.load().copy() for tensor in tensors}


@pytest.mark.parametrize("family", CONFIGS)
def test_tensors_of_a_tree_give_the_tree_again_in_any_order(family):
    config = CONFIGS[family]
    params, _ = random_leaves(config)
    tensors = layout.hf_tensors(params, config, None)
    back = flatten(layout.read_tree(tensors[::-1], config))
    ours = flatten(params)
    assert back.keys() == ours.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(back[path], leaf, err_msg=path)


def test_a_fused_tensor_holds_its_parts_one_below_the_other_and_turned():
    config = CONFIGS["phi3"]
    params, _ = random_leaves(config)
    found, blocks = loaded(layout.hf_tensors(params, config, None)), params["blocks"]
    for layer in range(config.layers):
        for name, group, parts in (
            ("self_attn.qkv_proj", "attn", "qkv"),
            ("mlp.gate_up_proj", "mlp", ("gate", "up")),
        ):
            wanted = np.concatenate([blocks[group][one]["kernel"][layer].T for one in parts])
            np.testing.assert_array_equal(found[f"model.layers.{layer}.{name}.weight"], wanted)
        down = found[f"model.layers.{layer}.mlp.down_proj.weight"]
        np.testing.assert_array_equal(down, blocks["mlp"]["down"]["kernel"][layer].T)
    np.testing.assert_array_equal(found["model.embed_tokens.weight"], params["embed"]["embedding"])


def test_a_dtype_asked_for_is_that_of_every_tensor():
    config = CONFIGS["llama"]
    params, _ = random_leaves(config)
    tensors = layout.hf_tensors(params, config, "bfloat16")
    assert {tensor.dtype.name for tensor in tensors} == {"bfloat16"}
    back = flatten(layout.read_tree(tensors, config, "float32"))
    assert {leaf.dtype.name for leaf in back.values()} == {"float32"}

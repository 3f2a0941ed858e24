"""What is written as GGUF reads back as the same model, adapter and tokenizer, or is refused."""

import dataclasses

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize, quantize
from tiny_families import CONFIGS, random_leaves
from tiny_tokenizer import CHATML_TEMPLATE

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.io import gguf, gguf_adapter, gguf_config, gguf_fields, gguf_keys, layout
from hen_jax.io.gguf_vocabulary import Vocabulary
from hen_jax.io.gguf_write import write_gguf, write_gguf_adapter
from hen_jax.models.config import LinearScaling, LoraConfig, RopeScaling

KNOWN = {
    # llama.cpp divides scores by the root of a head's width, and caps no logits in Gemma 3.
    name: dataclasses.replace(
        config, attention_scalar=config.attention_scalar and float(config.head_dim)
    )
    for name, config in CONFIGS.items()
}
KNOWN["llama-wide"] = dataclasses.replace(
    KNOWN["llama"], width=64, mlp_width=96, rope_scaling=LinearScaling(2.0), tied_head=True
)
DTYPES = {"float32": Kind.F32, "float16": Kind.F16, "bfloat16": Kind.BF16, "q8_0": Kind.Q8_0}


def vocabulary(rows: int) -> Vocabulary:
    tokens = [f"t{index}" for index in range(rows)]
    ids = {"bos": 1, "eos": 2}
    kinds = [TokenType.NORMAL] * rows
    return Vocabulary(
        "gpt-2", tokens, kinds, ["t 1"], None, ids, False, False, False, CHATML_TEMPLATE
    )


def written(path, config, params, dtype="float32"):
    tensors = layout.hf_tensors(params, config, None)
    write_gguf(path, config, tensors, vocabulary(config.vocab_size), dtype=dtype)
    return gguf.open_gguf(path)


@pytest.mark.parametrize("config", KNOWN.values(), ids=KNOWN)
def test_a_model_of_every_family_reads_back(tmp_path, config):
    params, _ = random_leaves(config)
    reader = written(tmp_path / "m.gguf", config, params)
    found = gguf_config.read_gguf_config(reader)
    assert found == gguf_keys.as_read(config)
    leaves = flatten(layout.read_tree(gguf.read_gguf_tensors(reader, found), found))
    for path, leaf in flatten(params).items():
        # A norm's scale is stored as 1 + scale, rounded.
        close = config.unit_offset_norm and path.endswith("/scale")
        np.testing.assert_allclose(leaves[path], leaf, rtol=0, atol=1.2e-7 if close else 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_are_stored_in_the_dtype_and_norms_in_float32(tmp_path, dtype):
    config = KNOWN["llama-wide"]
    params, _ = random_leaves(config)
    reader = written(tmp_path / "m.gguf", config, params, dtype)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    assert stored["output_norm.weight"].tensor_type is Kind.F32
    down = stored["blk.1.ffn_down.weight"]
    assert down.tensor_type is DTYPES[dtype]
    expected = flatten(params)["blocks/mlp/down/kernel"][1].T
    packed = quantize(np.ascontiguousarray(expected), DTYPES[dtype])
    np.testing.assert_array_equal(
        dequantize(down.data, down.tensor_type), dequantize(packed, DTYPES[dtype])
    )
    assert (
        reader.fields["general.file_type"].contents()
        == {"float32": 0, "float16": 1, "q8_0": 7, "bfloat16": 32}[dtype]
    )


ADAPTERS = [(name, LoraConfig(3, 7.0)) for name in KNOWN] + [
    ("phi3", LoraConfig(2, 3.0, ("q", "v", "down"), rank_stabilised=True)),
    ("llama", LoraConfig(4, 0.5, ("k", "up"))),
]


@pytest.mark.parametrize(("name", "lora"), ADAPTERS, ids=[name for name, _ in ADAPTERS])
def test_an_adapter_of_every_family_reads_back(tmp_path, name, lora):
    config = KNOWN[name]
    _, adapter = random_leaves(config, lora)
    write_gguf_adapter(tmp_path / "a.gguf", config, lora, adapter)
    reader = GGUFReader(tmp_path / "a.gguf")
    said = {key: gguf.field(reader, key) for key in ("general.type", "adapter.type")}
    assert said == {"general.type": "adapter", "adapter.type": "lora"}
    assert gguf.field(reader, "adapter.lora.alpha") == pytest.approx(lora.scale * lora.rank)
    found, leaves = gguf_adapter.read_gguf_adapter(tmp_path / "a.gguf", config)
    assert (found.rank, set(found.targets)) == (lora.rank, set(lora.targets))
    assert found.scale == pytest.approx(lora.scale)
    read = flatten(leaves)
    for path, leaf in flatten(adapter).items():
        np.testing.assert_allclose(read[path], leaf, rtol=3e-7, err_msg=path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", {"score_head": True}, "llama has no place for a score head"),
        ("qwen2", {"rope_scaling": RopeScaling(8.0, 1.0, 4.0, 16)}, "a llama3 rope scaling"),
        ("llama", {"rope_scaling": CONFIGS["phi3"].rope_scaling}, "longrope"),
        ("phi3", {"rope_scaling": LinearScaling(2.0)}, "a linear rope scaling"),
        ("qwen2", {"head_dim": 12}, "4 heads of 12 in a width of 32"),
        ("gemma2", {"attention_scalar": 20.0}, r"query_pre_attn_scalar 20.0 \(it divides by"),
        ("gemma2", {"final_softcap": None}, "that soft cap of logits"),
        ("gemma3", {"attention_softcap": 5.0}, "that soft cap of scores"),
        ("gemma3", {"global_layers": (0, 2)}, r"global layers \(0, 2\)"),
        ("gemma3", {"tied_head": False}, "an unembedding of its own"),
        ("llama", {"family": "mamba"}, "the family 'mamba' is not supported; supported: llama"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(name, change, message):
    config = dataclasses.replace(KNOWN[name], **change)
    with pytest.raises(InputError, match=message):
        gguf_fields.gguf_fields(config)


def test_rows_that_q8_0_cannot_cut_are_named(tmp_path):
    config = KNOWN["qwen3"]  # heads of 12
    with pytest.raises(InputError, match=r"blk\.0\.attn_output\.weight has rows of 48 numbers"):
        written(tmp_path / "m.gguf", config, random_leaves(config)[0], "q8_0")
    assert list(tmp_path.iterdir()) == []


def test_the_context_ends_where_llama_cpp_lacks_the_window():
    assert gguf_fields.gguf_fields(KNOWN["mistral"])["llama.context_length"] == 6
    assert gguf_fields.gguf_fields(KNOWN["gemma2"])["gemma2.context_length"] == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter.type": "control_vector"}, "is no LoRA adapter with an alpha"),
        ({"adapter.lora.alpha": 0.0}, "is no LoRA adapter with an alpha"),
    ],
)
def test_an_adapter_that_llama_cpp_would_read_otherwise_is_refused(tmp_path, change, message):
    config, lora = KNOWN["llama"], LoraConfig(2, 2.0, ("q",))
    write_gguf_adapter(
        tmp_path / "a.gguf", config, lora, random_leaves(config, lora)[1], about=change
    )
    with pytest.raises(InputError, match=message):
        gguf_adapter.read_gguf_adapter(tmp_path / "a.gguf", config)


def test_an_adapter_of_another_family_is_refused(tmp_path):
    config, lora = KNOWN["llama"], LoraConfig(2, 2.0, ("q",))
    write_gguf_adapter(tmp_path / "a.gguf", config, lora, random_leaves(config, lora)[1])
    with pytest.raises(InputError, match="of a llama model, not of qwen2"):
        gguf_adapter.read_gguf_adapter(tmp_path / "a.gguf", KNOWN["qwen2"])

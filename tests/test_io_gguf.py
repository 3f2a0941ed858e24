"""GGUF files written by llama.cpp's own package: config, exact values, row order, tokenizer."""

import json

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.io import gguf, hf, names
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.import_model import import_model

CONFIG = DecoderConfig(
    family="llama",
    vocab_size=300,
    width=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    mlp_width=96,
    max_length=128,
    norm_eps=1e-5,
    rope_theta=1e5,
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}"
KINDS = [GGMLQuantizationType.F32, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0]


def permuted(rows, heads):
    """llama.cpp's converter, `LlamaModel.permute`: the halves of each head interleaved."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def trained_tokenizer() -> dict:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    text = "the rain and the heart in the hearth 12 2024 12 and  then 7 the rain in the hearth"
    tokenizer.train_from_iterator([text] * 50, trainer)
    return json.loads(tokenizer.to_str())["model"]


def write_gguf(path, kind=KINDS[0], change=lambda writer: None, pre="smollm", drop=None):
    """A tiny Llama; returns its Hugging Face tensors as the values the file stands for."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(1e5)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    write_tokenizer_fields(writer, pre)
    change(writer)
    rng = np.random.default_rng(0)
    values = {}
    for row in names.table(CONFIG):
        shape = names.hf_shape(row, CONFIG)
        layers = zip(
            names.expand(row, row.name, CONFIG),
            names.expand(row, row.gguf, CONFIG),
            strict=True,
        )
        for name, stored_name in layers:
            value = rng.standard_normal(shape).astype(np.float32)
            stored_kind = kind if len(shape) == 2 else KINDS[0]
            value = dequantize(quantize(value, stored_kind), stored_kind)
            values[name] = value
            heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
            stored = value if heads is None else permuted(value, heads)
            if name != drop:
                packed = quantize(stored, stored_kind)
                writer.add_tensor(stored_name, packed, raw_dtype=stored_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def write_tokenizer_fields(writer, pre):
    model = trained_tokenizer()
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(300 - len(tokens))]
    kinds = [TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_import_gives_exactly_the_dequantised_values(tmp_path, kind, capsys):
    values = write_gguf(tmp_path / "m.gguf", kind)
    import_model(str(tmp_path / "m.gguf"), tmp_path / "out")
    config = hf.read_config(tmp_path / "out")
    assert config == CONFIG
    leaves = flatten(hf.read_params(tmp_path / "out", config))
    for row in names.table(config):
        leaf = leaves[row.path]
        assert leaf.dtype == np.float32
        for layer, name in enumerate(names.expand(row, row.name, config)):
            ours = leaf[layer] if row.stacked else leaf
            theirs = values[name].T if row.transposed else values[name]
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
    assert "tokenizer.json" in capsys.readouterr().out


def test_q_rows_interleave_the_halves_of_a_head():
    rows = np.arange(8)[:, None]
    assert gguf.unpermuted(rows, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    np.testing.assert_array_equal(gguf.unpermuted(permuted(rows, 2), 2), rows)


def test_the_tokenizer_splits_digits_and_keeps_special_tokens_whole(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    import_model(str(tmp_path / "m.gguf"), tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    text = "<|im_start|>the rain in 2024, 心 🙂  and\n\n 12<|im_end|>"
    encoding = tokenizer.encode(text)
    assert encoding.tokens[0] == "<|im_start|>"
    assert encoding.ids[0] == 1
    assert encoding.ids[-1] == 2
    assert [t for t in encoding.tokens if any(c.isdigit() for c in t)] == list("202412")
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == text
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == settings["pad_token"] == "<|im_end|>"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == TEMPLATE
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pre": "deepseek"}, "pre-tokenizer 'deepseek' is not supported"),
        ({"change": lambda w: w.add_expert_count(8)}, "expert_count"),
        ({"change": lambda w: w.add_rope_scaling_factor(2.0)}, "rope.scaling.factor"),
        ({"change": lambda w: w.add_key_length(8)}, "head widths differ"),
        ({"drop": "model.norm.weight"}, r"missing weights: output_norm\.weight"),
    ],
)
def test_what_we_do_not_have_is_refused(tmp_path, arguments, message):
    write_gguf(tmp_path / "m.gguf", **arguments)
    with pytest.raises(InputError, match=message):
        import_model(str(tmp_path / "m.gguf"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [0, 10, 3000, -100])
def test_a_damaged_file_is_refused(tmp_path, keep):
    path = tmp_path / "m.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"m\.gguf is not a whole GGUF file"):
        import_model(str(path), tmp_path / "out")


def test_another_architecture_is_refused(tmp_path):
    writer = GGUFWriter(tmp_path / "m.gguf", "bert")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="architecture 'bert'; supported: llama"):
        gguf.open_gguf(tmp_path / "m.gguf")

"""GGUF files written by llama.cpp's own package: config, exact values, row order, tokenizer."""

import dataclasses
import json

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter, RopeScalingType
from tiny_gguf import LLAMA, QWEN2, TEMPLATE, permuted, write_gguf
from tokenizers import Tokenizer

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.io import gguf, hf, names
from hen_jax.models.config import RopeScaling
from hen_jax.runs.import_model import import_model

KINDS = (Kind.F32, Kind.F16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q8_0, Kind.Q4_K, Kind.Q6_K)


@pytest.mark.parametrize(
    ("config", "kind"),
    [*((LLAMA, kind) for kind in KINDS), (QWEN2, Kind.F32), (QWEN2, Kind.Q4_K)],
    ids=lambda value: value.name if isinstance(value, Kind) else value.family,
)
def test_import_gives_exactly_the_dequantised_values(tmp_path, config, kind, capsys):
    values = write_gguf(tmp_path / "m.gguf", kind, config)
    import_model(str(tmp_path / "m.gguf"), tmp_path / "out")
    assert hf.read_config(tmp_path / "out") == config
    leaves = flatten(hf.read_params(tmp_path / "out", config))
    for row in names.weight_table(config):
        leaf = leaves[row.path]
        assert leaf.dtype == np.float32
        for layer, name in enumerate(names.expand(row, row.name, config)):
            ours = leaf[layer] if row.stacked else leaf
            theirs = values[name].T if row.transposed else values[name]
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
    assert "tokenizer.json" in capsys.readouterr().out


def llama_cpp_factors(factor: float) -> np.ndarray:
    """`rope_freqs` as llama.cpp's converter computes them, for heads of 64 and theta 100,000."""
    found = []
    for frequency in 1e5 ** -(np.arange(0, 64, 2) / 64):
        wavelength = 2 * np.pi / frequency
        smooth = (8192 / wavelength - 1) / 3
        blend = 1 / ((1 - smooth) / factor + smooth)
        low, high = wavelength > 8192, wavelength < 8192 / 4
        found.append(factor if low else 1.0 if high else blend)
    return np.asarray(found, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_rope_scaling_is_told_from_its_effect(tmp_path, factor):
    factors = llama_cpp_factors(factor)
    assert len(set(factors.tolist())) > 2  # kept, blended and divided
    path = tmp_path / "m.gguf"
    write_gguf(path, change=lambda w: w.add_tensor("rope_freqs.weight", factors))
    import_model(str(path), tmp_path / "out")
    scaling = RopeScaling(factor, 1.0, 4.0, 8192)
    expected = dataclasses.replace(LLAMA, rope_scaling=scaling)
    assert hf.read_config(tmp_path / "out") == expected


def test_q_rows_interleave_the_halves_of_a_head():
    rows = np.arange(8)[:, None]
    assert gguf.unpermuted(rows, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    np.testing.assert_array_equal(gguf.unpermuted(permuted(rows, 2), 2), rows)


@pytest.mark.parametrize("config", [LLAMA, QWEN2], ids=["smollm", "qwen2"])
def test_the_tokenizer_splits_digits_and_keeps_special_tokens_whole(tmp_path, config):
    write_gguf(tmp_path / "m.gguf", config=config)
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
        ({"change": lambda w: w.add_rope_scaling_type(RopeScalingType.YARN)}, "scaling 'yarn'"),
        ({"change": lambda w: w.add_key_length(8)}, "head widths differ"),
        (
            {"change": lambda w: w.add_tensor("rope_freqs.weight", llama_cpp_factors(9.0))},
            "rope_freqs.weight is of no rope scaling that Meta published",
        ),
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
    with pytest.raises(
        InputError, match="architecture 'bert'; supported: llama, qwen2, qwen3, phi3"
    ):
        gguf.open_gguf(tmp_path / "m.gguf")

"""`hen export` of a run as GGUF: what comes out, and what is refused in one line."""

import json

import numpy as np
import pytest
from gguf import GGUFReader
from tokenizers import Tokenizer

from hen_jax import cli
from hen_jax.core.trees import flatten
from hen_jax.io import gguf, gguf_adapter, gguf_tokenizer, hf
from hen_jax.runs.export import gguf as export_gguf
from hen_jax.runs.export.trained import open_trained
from hen_jax.runs.import_model import import_model


@pytest.fixture(scope="module")
def exports(tiny_finished, tmp_path_factory):
    """The folder with `model.gguf` and `adapter.gguf` of the tiny run."""
    folder = tmp_path_factory.mktemp("exports")
    for form, name in (("gguf", "model"), ("gguf-lora", "adapter")):
        arguments = ["--run", str(tiny_finished), "--out", str(folder / f"{name}.gguf")]
        assert cli.main(["export", *arguments, "--format", form]) == 0
    return folder


def test_a_whole_model_comes_back_as_a_folder(exports, tiny_finished, tmp_path):
    trained = open_trained(tiny_finished)
    base, merged = trained.model.folder, export_gguf.merge_adapter
    import_model(str(exports / "model.gguf"), tmp_path / "back")
    assert hf.read_config(tmp_path / "back") == trained.model.config
    assert trained.lora is not None
    expected = flatten(merged(trained.model.base, trained.params, trained.lora.scale))
    found = flatten(hf.read_params(tmp_path / "back", trained.model.config))
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], np.asarray(leaf), err_msg=path)
    for name in ("chat_template.jinja",):
        assert (tmp_path / "back" / name).read_bytes() == (base / name).read_bytes()
    texts = ["It's 12 o'clock 🙂", "<|im_start|>user\nhi<|im_end|>\n"]
    ours, theirs = (
        Tokenizer.from_file(str(f / "tokenizer.json")) for f in (tmp_path / "back", base)
    )
    assert [ours.encode(t).ids for t in texts] == [theirs.encode(t).ids for t in texts]


def test_what_llama_cpp_would_make_up_is_all_written(exports):
    reader = GGUFReader(exports / "model.gguf")
    keys = ["pre", "bos_token_id", "eos_token_id", "add_bos_token", "add_eos_token", "merges"]
    said = {key: gguf.field(reader, f"tokenizer.ggml.{key}") for key in keys}
    assert said["pre"] == "gpt-2"
    assert (said["bos_token_id"], said["eos_token_id"]) == (1, 2)
    assert said["add_bos_token"] is said["add_eos_token"] is False
    assert gguf.field(reader, "llama.rope.freq_base") == 10000
    assert gguf.field(reader, "general.type") == "model"
    assert "/" not in json.loads(gguf.field(reader, "hen_jax.run"))["base"]["folder"]
    kinds = gguf.field(reader, "tokenizer.ggml.token_type")
    assert kinds[1] == kinds[2] == 3  # control


def test_the_adapter_is_that_of_the_run(exports, tiny_finished):
    trained = open_trained(tiny_finished)
    lora, leaves = gguf_adapter.read_gguf_adapter(exports / "adapter.gguf", trained.model.config)
    assert lora == trained.lora
    for path, leaf in flatten(trained.params).items():
        np.testing.assert_array_equal(flatten(leaves)[path], np.asarray(leaf), err_msg=path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "gguf", "--out", "{tmp}/folder"], "must be a file that ends in .gguf"),
        (["--format", "gguf", "--dtype", "q4_k"], "dtype 'q4_k' is not supported for GGUF"),
        (["--format", "gguf-lora", "--dtype", "q8_0"], "not as q8_0"),
        (["--format", "hf", "--dtype", "q8_0"], "dtype 'q8_0' is not supported"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tiny_finished, tmp_path, capsys, arguments, message
):
    filled = [word.format(tmp=tmp_path) for word in arguments]
    out = [] if "--out" in filled else ["--out", str(tmp_path / "out.gguf")]
    assert cli.main(["export", "--run", str(tiny_finished), *filled, *out]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_else_stays(tiny_finished, tmp_path, capsys):
    out = tmp_path / "mine.gguf"
    out.write_text("mine")
    assert (
        cli.main(["export", "--run", str(tiny_finished), "--format", "gguf", "--out", str(out)])
        == 2
    )
    assert "is not what hen_jax wrote there" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_a_file_that_speaks_otherwise_does_not_appear(tiny_finished, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "as_ours", lambda array, *_: array * 2)
    with pytest.raises(RuntimeError, match="gives other logits than the run"):
        export_gguf.export_gguf(tiny_finished, tmp_path / "m.gguf", "gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_reads_otherwise_is_refused(exports, tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text(
        gguf_tokenizer.build_tokenizer(GGUFReader(exports / "model.gguf")).to_str()
    )
    reader = GGUFReader(exports / "model.gguf")
    gguf_tokenizer.require_same_tokens(reader, tmp_path)
    other = gguf_tokenizer.SPLITTINGS["llama-bpe"]
    monkeypatch.setitem(gguf_tokenizer.SPLITTINGS, "gpt-2", other)
    with pytest.raises(gguf_tokenizer.InputError, match=r"llama\.cpp would read"):
        gguf_tokenizer.require_same_tokens(reader, tmp_path)

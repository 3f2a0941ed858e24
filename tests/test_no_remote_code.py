"""A model folder's own code is never run, and nobody is asked whether it should be."""

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.data.rows import read_lines
from hen_jax.text.tokenizer import load_tokenizer

CODE = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import LlamaConfig, PreTrainedTokenizerFast
class Own(PreTrainedTokenizerFast): pass
class OwnConfig(LlamaConfig): model_type = "own"
"""


class Asked(StringIO):
    """A terminal at which somebody says yes to everything."""

    def readline(self, *_: object) -> str:
        pytest.fail("a question was asked")

    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model folder whose files name code that writes `ran` beside it."""
    folder = tmp_path / "model"
    tiny_tokenizer().save_pretrained(folder)
    (folder / "own.py").write_text(CODE.format(mark=str(tmp_path / "ran")))
    return folder


def name_code(folder: Path, model_type: str, **tokenizer: object) -> None:
    auto = {"AutoConfig": "own.OwnConfig", "AutoTokenizer": ["own.Own", "own.Own"]}
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "auto_map": auto}))
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text()) | {"auto_map": auto} | tokenizer
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))


@pytest.mark.parametrize("stdin", ["terminal", "closed"])
@pytest.mark.parametrize("model_type", ["qwen2", "own"])
@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "Own", None])
def test_code_of_a_model_folder_is_never_run(
    folder, monkeypatch, stdin, model_type, tokenizer_class
):
    name_code(folder, model_type, tokenizer_class=tokenizer_class)
    monkeypatch.setattr(sys, "stdin", Asked() if stdin == "terminal" else None)
    if model_type == "qwen2" or tokenizer_class == "PreTrainedTokenizerFast":
        assert load_tokenizer(folder).encode("rain")
    else:  # transformers knows neither the model nor the tokenizer's class
        with pytest.raises(InputError, match=r"^[^\n]* which hen_jax never runs[^\n]*$"):
            load_tokenizer(folder)
    assert not (folder.parent / "ran").exists()


def test_a_loading_script_in_a_data_folder_is_refused_in_one_line(tmp_path):
    data = tmp_path / "set"
    data.mkdir()
    (data / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="no data file in this folder"):
        list(read_lines(data))
    assert not (tmp_path / "ran").exists()

"""What transformers made of a tokenizer is kept, and read instead of transformers."""

import pytest
from tiny_tokenizer import CHATML_TEMPLATE, tiny_tokenizer

from hen_jax.runs import known_tokenizers
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.text.chat import render_prompt, stop_ids
from hen_jax.text.conversation import Message
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HEN_CACHE", str(tmp_path / "cache"))
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def reads(monkeypatch):
    """The folders that transformers was asked to read."""
    asked, real = [], known_tokenizers.open_chat_tokenizer

    def load(folder):
        asked.append(folder)
        return real(folder)

    monkeypatch.setattr(known_tokenizers, "open_chat_tokenizer", load)
    return asked


def test_a_tokenizer_is_read_by_transformers_once_and_stays_the_same(folder, reads):
    first, again, theirs = known_tokenizer(folder), known_tokenizer(folder), tiny_tokenizer()
    assert reads == [folder]
    assert first.chat_format == again.chat_format == detect_format(theirs)
    assert stop_ids(again) == stop_ids(ChatTokenizer(theirs, first.chat_format))
    asked = [Message("user", "It rained on my new shoes <|im_end|>.")]
    ids = render_prompt(asked, again)
    assert ids.tolist() == render_prompt(asked, ChatTokenizer(theirs, first.chat_format)).tolist()
    assert again.tokenizer.decode(ids) == theirs.decode(ids)
    said = again.tokenizer.batch_decode([ids], skip_special_tokens=True)
    assert said == theirs.batch_decode([ids], skip_special_tokens=True)
    assert again.tokenizer.all_special_ids == sorted(theirs.all_special_ids)


def test_another_template_is_another_tokenizer(folder, reads):
    says_by_default = known_tokenizer(folder).chat_format.default_system
    assert says_by_default is not None
    tiny_tokenizer(CHATML_TEMPLATE).save_pretrained(folder)
    assert known_tokenizer(folder).chat_format.default_system is None
    assert len(reads) == 2


def test_one_that_was_damaged_is_made_anew(folder, reads, capsys):
    before = known_tokenizer(folder)
    (kept,) = (folder.parent / "cache" / "tokenizers").glob("*/tokenizer.json")
    kept.write_text(kept.read_text().replace("rain", "sun"))
    after = known_tokenizer(folder)
    assert len(reads) == 2
    assert "tokenizer.json is not as written" in capsys.readouterr().out
    assert after.tokenizer.backend_tokenizer.to_str() == before.tokenizer.backend_tokenizer.to_str()

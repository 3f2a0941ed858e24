"""`hen show` prints the text the model sees, and sets apart what trains."""

import dataclasses
import json
import re

import numpy as np
import pytest
from tiny_tokenizer import tiny_tokenizer

from hen_jax.cli import main
from hen_jax.core.errors import InputError
from hen_jax.data.examples import Document, encode
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.verbs import show

TOKENIZER = tiny_tokenizer()
WORDS = ChatTokenizer(TOKENIZER, detect_format(TOKENIZER))
TALK = Conversation(
    (
        Message("system", "Be kind."),
        Message("user", "我 <|im_end|>?"),
        Message("assistant", "Yes.\n😀"),
        Message("user", "Why?"),
        Message("assistant", "So."),
    )
)


@pytest.fixture
def example():
    (made,) = encode([Document("a", "a", TALK)], WORDS, max_length=99).examples
    return made


def test_what_trains_stands_in_brackets_and_nothing_is_hidden(example):
    assert show.painted(example, WORDS, colour=False) == (
        "<|im_start|>system↵\nBe kind.<|im_end|>↵\n"
        "<|im_start|>user↵\n我 <|im_end|>?<|im_end|>↵\n"
        "<|im_start|>assistant↵\n⟦Yes.↵\n😀<|im_end|>⟧↵\n"
        "<|im_start|>user↵\nWhy?<|im_end|>↵\n"
        "<|im_start|>assistant↵\n⟦So.<|im_end|>⟧↵\n"
    )


def test_colours_say_the_same(example):
    painted = show.painted(example, WORDS, colour=True)
    trained = re.findall(
        re.escape(show.TRAINED) + r"(?:\033\[7m)?(.*?)\033\[0m", painted, re.DOTALL
    )
    assert "".join(trained) == "Yes.↵\n😀<|im_end|>So.<|im_end|>"
    # A control token is reversed; the one that was typed is text, and is not.
    assert len(re.findall(r"\033\[7m<\|im_(?:start|end)\|>", painted)) == 10
    plain = show.painted(example, WORDS, colour=False)
    assert re.sub(r"\033\[[\d;]*m", "", painted) == re.sub("[⟦⟧]", "", plain)


def test_the_counts_are_those_of_the_example(example):
    counted = show.counted(example, WORDS)
    total, trained = len(example.tokens), int(np.sum(example.mask))
    assert f"{total} tokens: {trained} train" in counted
    assert f"in 2 replies, {total - trained} do not; 10 control tokens" in counted
    assert "chat format chatml, which says by default 'You are a helpful AI" in counted


def test_a_record_of_a_file_with_a_model_folder(tmp_path, capsys):
    TOKENIZER.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    rows = [
        {"id": f"r{n}", "group": "x", "messages": [{"role": "user", "content": "Hi " * 20},
         {"role": "assistant", "content": "Hello"}, {"role": "user", "content": f"{n}?"},
         {"role": "assistant", "content": f"{n}!"}]}
        for n in range(3)
    ]  # fmt: skip
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    wanted = show.from_file(tmp_path / "model", file, "messages", 2)
    said = show.show(wanted)
    assert capsys.readouterr().out == said + "\n"
    flags = ["--model", str(tmp_path / "model"), "--data", str(file), "--example", "2"]
    assert main(["show", *flags, "--schema", "messages"]) == 0
    assert capsys.readouterr().out == said + "\n"  # no terminal: no colours
    assert main(["show", *flags]) == 2
    assert "give --config, or --model, --data and --schema" in capsys.readouterr().err
    assert said.startswith("record r1, example 2 of the train part\n<|im_start|>system")
    assert said.count("⟦") == 2
    short = show.show(dataclasses.replace(wanted, row_length=60))
    assert "its oldest turns are left out to fit 60" in short
    assert short.count("⟦") == 1
    for change, message in (
        ({"example": 4}, "--example 4: the train part has fewer"),
        ({"example": 0}, "examples are counted from 1"),
        ({"row_length": 9}, "record r1: its last exchange alone is longer than a row of 9"),
    ):
        with pytest.raises(InputError, match=message):
            show.show(dataclasses.replace(wanted, **change))


def test_a_config_without_data_is_refused(tmp_path):
    (tmp_path / "c.py").write_text(
        "from ml_collections import ConfigDict\ndef get_config():\n"
        "    return ConfigDict({'recipe': 'sft', 'model': {'source': 'tiny'}})\n"
    )
    with pytest.raises(InputError, match=r"config\.sources is missing; nothing to show"):
        show.from_config(str(tmp_path / "c.py"), [])


def test_columns_by_another_name(tmp_path, capsys):
    TOKENIZER.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    file = tmp_path / "a.jsonl"
    file.write_text('{"question": "Who?", "answer": "Me."}')
    flags = [f"--model={tmp_path / 'model'}", f"--data={file}", "--schema=completion", "--columns"]
    assert main(["show", *flags, "prompt=question", "completion=answer"]) == 0
    assert "Who?<|im_end|>" in (said := capsys.readouterr().out)
    assert "⟦Me.<|im_end|>⟧" in said
    assert main(["show", *flags, "promt=question"]) == 2
    assert (
        "--columns.promt: no such field; did you mean --columns.prompt?" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(["show", *flags, "prompt="])

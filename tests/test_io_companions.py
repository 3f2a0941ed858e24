"""What lies beside weights: where replies end, and what a reward model pads with."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_families import random_leaves
from tiny_folder import write_tiny_folder
from tiny_gguf import write_gguf
from tiny_model import CONFIG, LORA

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.io import companions, hf, peft
from hen_jax.io.reward_pad import choose_pad
from hen_jax.runs.import_model import import_model
from hen_jax.runs.tiny_model import CONFIG as SPEAKER
from hen_jax.text.chat import stop_ids
from hen_jax.text.detect import open_chat_tokenizer
from hen_jax.verbs.generate.generate import GenerateRequest, generate_replies


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def edit(folder, name, **fields):
    (folder / RECORD).unlink(missing_ok=True)
    (folder / name).write_text(json.dumps(read(folder, name) | fields))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def base(tiny, tmp_path):
    """The tokenizer and configs of a base model whose own end is <|endoftext|>, not the chat's."""
    folder = tmp_path / "base"
    folder.mkdir()
    companions.copy_files(tiny, folder)
    edit(folder, "tokenizer_config.json", eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    edit(folder, "generation_config.json", eos_token_id=0, pad_token_id=0, temperature=0.5)
    (folder / "config.json").write_text('{"eos_token_id": 0, "pad_token_id": 0}')
    return folder


def test_an_export_ends_at_the_chat_formats_stop_and_at_the_bases_own_end(base, tmp_path):
    stops = stop_ids(open_chat_tokenizer(base))
    assert stops == (2, 0)
    params, adapter = random_leaves(CONFIG, LORA)
    hf.write_model(tmp_path / "m", CONFIG, params, source_folder=base, stops=stops[:1])
    assert read(tmp_path / "m", "config.json")["eos_token_id"] == [2, 0]
    generation = read(tmp_path / "m", "generation_config.json")
    assert generation["eos_token_id"] == [2, 0]
    assert generation["temperature"] == 0.5
    peft.write_adapter(
        tmp_path / "a", CONFIG, LORA, adapter, base_model="o/b", source_folder=base, stops=(2,)
    )
    assert read(tmp_path / "a", "generation_config.json")["eos_token_id"] == [2, 0]
    for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (base / name).read_bytes()


def test_ends_that_are_all_named_stay_byte_by_byte(base, tmp_path):
    (base / "generation_config.json").write_text('{"eos_token_id":[0,2]}')
    hf.write_model(tmp_path / "m", CONFIG, random_leaves(CONFIG)[0], source_folder=base, stops=(2,))
    assert (tmp_path / "m" / "generation_config.json").read_text() == '{"eos_token_id":[0,2]}'


@pytest.mark.parametrize("value", ["<|im_end|>", [2, "x"], -1, True, {"id": 2}])
def test_an_end_that_is_no_id_is_refused(base, value):
    edit(base, "generation_config.json", eos_token_id=value)
    with pytest.raises(InputError, match="eos_token_id"):
        companions.end_ids(base)


def test_the_ends_of_a_gguf_file_travel(tmp_path):
    def change(writer):
        writer.add_eot_token_id(1)
        writer.add_eom_token_id(0)

    write_gguf(tmp_path / "m.gguf", change=change)
    import_model(str(tmp_path / "m.gguf"), tmp_path / "out")
    for name in ("config.json", "generation_config.json"):
        assert read(tmp_path / "out", name)["eos_token_id"] == [2, 1, 0]


def test_generation_stops_at_each_end_of_the_generation_config(tiny, tmp_path):
    """A model that says one word, then <|endoftext|> and more."""
    tokenizer = open_chat_tokenizer(tiny).tokenizer
    opening = tokenizer.encode("<|im_start|>assistant\n")[-1]
    said = tokenizer.encode("Sure")[-1]
    config = dataclasses.replace(SPEAKER, tied_head=False)
    params, _ = random_leaves(config)
    for part in (params["blocks"]["attn"]["o"], params["blocks"]["mlp"]["down"]):
        part["kernel"] = np.zeros_like(part["kernel"])
    params["norm"]["scale"] = np.ones_like(params["norm"]["scale"])
    vectors = params["embed"]["embedding"]
    head = np.zeros_like(vectors.T)
    for before, after in ((opening, said), (said, 0), (0, said + 1)):
        head[:, after] = vectors[before]
    params["head"]["kernel"] = head
    hf.write_model(tmp_path / "m", config, params, source_folder=tiny)
    edit(tmp_path / "m", "generation_config.json", eos_token_id=[2, 0])
    asked = GenerateRequest(tmp_path / "m", ("hi",), max_new_tokens=4, temperature=0.0)
    (reply,) = generate_replies(asked)
    assert (reply.tokens, reply.stopped) == (2, True)
    assert reply.text == tokenizer.decode([said])


REWARD = dataclasses.replace(CONFIG, score_head=True)


def add_special(folder, *contents):
    tokenizer = read(folder, "tokenizer.json")
    for number, content in enumerate(contents):
        more = dict(tokenizer["added_tokens"][0], id=40 + number, content=content)
        tokenizer["added_tokens"].append(more)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def test_a_reward_model_pads_with_a_token_that_no_document_contains(base, tmp_path):
    config = dataclasses.replace(REWARD, vocab_size=2048)
    with pytest.raises(InputError, match="every control token of the tokenizer may stand"):
        choose_pad(config, base, (2,))
    add_special(base, "<|repo|>", "<|reserved_1|>", "<|my_pad|>")
    params, adapter = random_leaves(config, LORA)
    hf.write_model(tmp_path / "m", config, params, source_folder=base, stops=(2,))
    adapter["score"] = params["score"]
    peft.write_adapter(
        tmp_path / "a", config, LORA, adapter, base_model="o/b", source_folder=base, stops=(2,)
    )
    assert read(tmp_path / "m", "config.json")["pad_token_id"] == 42
    assert "num_labels=1, pad_token_id=42" in (tmp_path / "a" / "README.md").read_text()
    for out in (tmp_path / "m", tmp_path / "a"):
        assert read(out, "tokenizer_config.json")["pad_token"] == "<|my_pad|>"
        assert read(out, "generation_config.json")["pad_token_id"] == 42
    # The tokenizer itself is the base's: nothing is added, nothing resized.
    assert read(tmp_path / "m", "tokenizer.json") == read(base, "tokenizer.json")


def test_a_pad_token_of_its_own_is_kept(base):
    config = dataclasses.replace(REWARD, vocab_size=2048)
    add_special(base, "<|my_pad|>", "<|other|>")
    edit(base, "tokenizer_config.json", pad_token="<|other|>")
    edit(base, "config.json", pad_token_id=41)
    assert choose_pad(config, base, (2,)) == (41, "<|other|>")
    assert choose_pad(dataclasses.replace(config, vocab_size=41), base, (2,)) == (40, "<|my_pad|>")


def test_without_a_tokenizer_the_pad_id_must_not_end_a_reply(tmp_path):
    (tmp_path / "config.json").write_text('{"pad_token_id": 3, "eos_token_id": [3, 4]}')
    with pytest.raises(InputError, match="pad_token_id that no document contains, and 3"):
        choose_pad(REWARD, tmp_path, ())
    (tmp_path / "config.json").write_text('{"pad_token_id": 3, "eos_token_id": 4}')
    assert choose_pad(REWARD, tmp_path, ()) == (3, None)
    with pytest.raises(InputError, match="pad_token_id"):
        choose_pad(REWARD, tmp_path, (3,))

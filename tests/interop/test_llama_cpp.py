"""Our GGUF files in llama.cpp itself: the same ids of a text, the same tokens, late ones too."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from llama_cpp import greedy, greedy_reply, opened, tokenized
from test_smollm2 import DIGITS, NASTY, PROMPTS
from transformers import AutoTokenizer

sys.path.append(str(Path(__file__).parents[1]))
from test_io_gguf_vocabulary import folder_of, of_bytes, of_pieces
from test_io_gguf_write import KNOWN, vocabulary
from tiny_families import random_leaves as small_leaves

from hen_jax.core.trees import flatten, unflatten
from hen_jax.io import hf, layout
from hen_jax.io.gguf_keys import WINDOWED, architecture_of
from hen_jax.io.gguf_splitting import SPLITTINGS
from hen_jax.io.gguf_vocabulary import read_vocabulary
from hen_jax.io.gguf_write import KINDS, write_gguf, write_gguf_adapter
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.sampling.engine import Engine
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.speaker import requests_of, slots_for
from hen_jax.sampling.weights import weights_from
from hen_jax.text.chat import render_prompt
from hen_jax.text.conversation import Message
from hen_jax.text.detect import open_chat_tokenizer

LORA = LoraConfig(rank=8, alpha=40.0)
NEW = 48


@pytest.fixture(scope="module")
def model(smollm2):
    config = hf.read_config(smollm2)
    return config, hf.read_params(smollm2, config)


@pytest.fixture(scope="module")
def adapter(model):
    """An adapter that changes what is said, and still says something."""
    rng = np.random.default_rng(7)
    _, zeros = small_leaves(model[0], LORA)
    return jax.tree.map(lambda leaf: (0.02 * rng.standard_normal(leaf.shape)).astype("f4"), zeros)


@pytest.fixture(scope="module")
def files(smollm2, model, adapter, tmp_path_factory):
    """The folder with `model.gguf` (float32) and `adapter.gguf`."""
    folder, (config, params) = tmp_path_factory.mktemp("gguf"), model
    words = read_vocabulary(smollm2, config.vocab_size, (2,))
    write_gguf(folder / "model.gguf", config, layout.hf_tensors(params, config, None), words)
    write_gguf_adapter(folder / "adapter.gguf", config, LORA, adapter)
    return folder


@pytest.fixture(scope="module")
def chat_rows(smollm2):
    """Our ids of each prompt, as the model is asked it."""
    tokenizer = open_chat_tokenizer(smollm2)
    return [render_prompt([Message("user", prompt)], tokenizer).tolist() for prompt in PROMPTS]


def ours(config, rows, lora, *trees):
    """Our greedy tokens after each row, to the stop token or `NEW`."""
    graphdef = split(abstract(config, lora, Execution("float32", "none"))).graphdef
    requests = requests_of(rows, Generating(NEW, (2,), Sampling(temperature=0.0)), seed=0)
    found = Engine(weights_from(graphdef)(*trees), slots_for(requests)).run(requests)
    return [one.tokens.tolist() for one in found]


def assert_same(found, expected):
    """llama.cpp leaves the stop token out of what it wrote."""
    for one, tokens in zip(found, expected, strict=True):
        said = tokens[:-1] if tokens[-1] == 2 else tokens
        assert one.tokens[: len(said)] == said
        assert set(one.tokens[len(said) :]) <= {2}


def test_llama_cpp_says_what_we_say_and_an_adapter_changes_both_alike(
    files, model, adapter, chat_rows
):
    config, params = model
    plain = ours(config, chat_rows, None, params)
    tuned = ours(config, chat_rows, LORA, params, adapter)
    with opened(files / "model.gguf") as server:
        assert_same([greedy(server, row, NEW) for row in chat_rows], plain)
        messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
        assert_same([greedy_reply(server, one, NEW) for one in messages], plain)
    with opened(files / "model.gguf", files / "adapter.gguf") as server:
        assert_same([greedy(server, row, NEW) for row in chat_rows], tuned)
    assert sum(one != other for one, other in zip(plain, tuned, strict=True)) >= 3
    assert max(map(len, plain)) == max(map(len, tuned)) == NEW


def test_llama_cpp_reads_the_ids_that_we_read(files, smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    with opened(files / "model.gguf") as server:
        for text in [*NASTY, *DIGITS, *PROMPTS]:
            assert tokenized(server, text, add_special=True) == tokenizer(text)["input_ids"], text


@pytest.mark.parametrize("dtype", [name for name in KINDS if name != "float32"])
def test_narrow_files_load_and_stay_near(files, smollm2, model, chat_rows, tmp_path, dtype):
    config, params = model
    words = read_vocabulary(smollm2, config.vocab_size, (2,))
    path = tmp_path / "m.gguf"
    write_gguf(path, config, layout.hf_tensors(params, config, None), words, dtype=dtype)
    with opened(files / "model.gguf") as server:
        exact = greedy(server, chat_rows[0], 8)
    with opened(path) as server:
        found = greedy(server, [*chat_rows[0], *exact.tokens[:4]], 1)
    # A handful of candidates are near each other: it is the probability that tells.
    assert found.log_probs[0] == pytest.approx(exact.log_probs[4], abs=0.15)


@pytest.mark.parametrize("make", [*SPLITTINGS, True, False], ids=str)
def test_every_splitting_gives_our_ids(tmp_path, make):
    tokenizer = of_bytes(make) if isinstance(make, str) else of_pieces(make)
    roles = {"bos_token": tokenizer.id_to_token(1), "eos_token": tokenizer.id_to_token(2)}
    folder = folder_of(tmp_path / "m", tokenizer, roles)
    config = dataclasses.replace(KNOWN["llama"], vocab_size=2010, tied_head=True)
    tensors = layout.hf_tensors(small_leaves(config)[0], config, None)
    write_gguf(tmp_path / "m.gguf", config, tensors, read_vocabulary(folder, 2010, (2,)))
    texts = [text for text in [*NASTY, *DIGITS, *PROMPTS] if "e\u0301" not in text]
    with opened(tmp_path / "m.gguf", context=64) as server:
        for text in texts:
            found = tokenized(server, text, add_special=True)
            assert found == tokenizer.encode(text).ids, text


@pytest.mark.parametrize("name", KNOWN)
def test_every_family_computes_what_we_compute(tmp_path, forward, name):
    config, lora = KNOWN[name], LoraConfig(3, 9.0)
    if architecture_of(config) not in WINDOWED:  # the context would end with the window
        config = dataclasses.replace(config, window=None, global_layers=())
    base, adapter = small_leaves(config, lora)
    tensors = layout.hf_tensors(base, config, None)
    write_gguf(tmp_path / "m.gguf", config, tensors, vocabulary(config.vocab_size))
    write_gguf_adapter(tmp_path / "a.gguf", config, lora, adapter)
    prompt = np.random.default_rng(1).integers(3, 96, 20).tolist()
    for used in (None, lora):
        with opened(tmp_path / "m.gguf", tmp_path / "a.gguf" if used else None, 64) as server:
            found = greedy(server, prompt, 40)
        params = base if used is None else unflatten(flatten(base) | flatten(adapter))
        row = np.asarray([prompt + found.tokens])
        logits = forward(config, params, row, used)[0, len(prompt) - 1 : -1]
        log_probs = np.asarray(jax.nn.log_softmax(logits.astype(np.float64)))
        assert logits.argmax(-1).tolist() == found.tokens
        chosen = log_probs[np.arange(len(found.tokens)), found.tokens]
        assert np.abs(chosen - found.log_probs).max() < 2e-3

"""The imported SmolLM2-135M against transformers' own reading of the same GGUF file."""

import json

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from hen_jax.core.trees import count, flatten
from hen_jax.io import hf, names
from hen_jax.models.config import Execution
from hen_jax.models.decoder import abstract, split
from hen_jax.sampling.engine import Engine
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.requests import Request
from hen_jax.sampling.slots import Slots
from hen_jax.sampling.weights import weights_from

PROMPTS = [
    "My sister forgot my birthday, but it is fine.",
    "I failed the exam again. What should I do?",
    "The rain in Spain",
    "Write a haiku about an old friend.",
    "My dog died yesterday and nobody at work noticed.",
]

NASTY = [
    "",
    " ",
    "  leading and   inner   spaces  ",
    "\n\n\tTabs\r\n and lines \n",
    "It's I'll don't DON'T we've 's",
    "妈妈说：“没事，我自己来。” 你吃饭了吗？",
    "🙂👨‍👩‍👧‍👦🏳️‍🌈 é e\u0301 ﬁ Ω\u00a0\u3000\u200b x",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_start|> <repo_name>x",
    "<|im_ start|> <|im_end",
    "\x00\x07\ufffd\U0010ffff",
    "a" * 300,
]

DIGITS = ["2024", "x 12 345", "  7", "3.14159 and 1,000,000", "٣٤ ½ ² Ⅻ", "v1.2.3-rc4\n 5"]


@pytest.fixture(scope="module")
def theirs(smollm2_gguf):
    return AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def their_tokenizer(smollm2_gguf):
    return AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="module")
def ours(smollm2):
    config = hf.read_config(smollm2)
    return config, hf.read_params(smollm2, config)


def test_every_weight_is_bit_for_bit_theirs(ours, theirs):
    config, params = ours
    assert count(params) == 134_515_008
    leaves, state = flatten(params), theirs.state_dict()
    compared = 0
    for row in names.weight_table(config):
        for layer, name in enumerate(names.expand(row, row.name, config)):
            leaf = leaves[row.path][layer] if row.stacked else leaves[row.path]
            expected = state.pop(name).numpy()
            np.testing.assert_array_equal(leaf.T if row.transposed else leaf, expected, name)
            compared += 1
    assert compared == 272
    assert list(state) == ["lm_head.weight"]


def test_the_config_is_theirs_but_for_the_rounded_eps(smollm2, theirs):
    written = json.loads((smollm2 / "config.json").read_text())
    theirs = theirs.config.to_dict()
    assert written["rms_norm_eps"] == 1e-5 == pytest.approx(theirs["rms_norm_eps"], rel=1e-7)
    neutral = {"rms_norm_eps", "architectures", "rope_theta", "rope_scaling", "dtype"}
    different = {k: (v, theirs.get(k)) for k, v in written.items() if v != theirs.get(k)}
    assert set(different) <= neutral, different


@pytest.mark.parametrize("text", NASTY + PROMPTS)
def test_token_ids_equal_theirs(tokenizer, their_tokenizer, text):
    assert tokenizer(text)["input_ids"] == their_tokenizer(text)["input_ids"]
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == their_tokenizer.decode(ids)


@pytest.mark.parametrize("text", DIGITS)
def test_digits_are_split_one_by_one_as_the_file_asks(tokenizer, their_tokenizer, text):
    # transformers' GGUF reader drops the digit splitting of the `smollm` pre-tokenizer; put back.
    backend = their_tokenizer.backend_tokenizer
    plain = backend.pre_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, plain])
    try:
        expected = their_tokenizer(text)["input_ids"]
    finally:
        backend.pre_tokenizer = plain
    assert tokenizer(text)["input_ids"] == expected


def test_chat_template_and_special_ids_equal_theirs(tokenizer, their_tokenizer):
    talk = [
        {"role": "user", "content": "He said 'it's fine'."},
        {"role": "assistant", "content": "你还好吗？"},
        {"role": "user", "content": "  yes\n"},
    ]
    system = [{"role": "system", "content": "Be brief."}]
    for messages in (talk, system + talk, talk[:1]):
        for generation in (False, True):
            rendered = [
                t.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
                for t in (tokenizer, their_tokenizer)
            ]
            assert rendered[0] == rendered[1]
    assert tokenizer.special_tokens_map == their_tokenizer.special_tokens_map
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)


def test_logits_equal_theirs(ours, theirs, tokenizer, forward):
    config, params = ours
    rows = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    # Padded at the right: a causal model's logits before the padding do not see it.
    tokens = np.asarray([row + [2] * (max(map(len, rows)) - len(row)) for row in rows])
    found = forward(config, params, tokens)
    for row, logits in zip(rows, found, strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([row])).logits[0].numpy()
        assert np.abs(logits[: len(row)] - expected).max() <= 2e-4


def test_greedy_generation_equals_theirs_token_for_token(ours, theirs, tokenizer):
    config, params = ours
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt in PROMPTS
    ]
    prompts = [tokenizer(chat)["input_ids"] for chat in chats]
    graphdef = split(abstract(config, None, Execution("float32", "none"))).graphdef
    engine = Engine(weights_from(graphdef)(params), Slots(rows=4, places=256))
    greedy, stop = Sampling(temperature=0.0), (tokenizer.eos_token_id,)
    found = engine.run(Request(tuple(row), 48, stop, sampling=greedy) for row in prompts)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([prompt]), max_new_tokens=48, do_sample=False, pad_token_id=2
            )
        expected = whole[0, len(prompt) :].tolist()
        assert found[row].tokens.tolist() == expected

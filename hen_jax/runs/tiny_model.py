"""`hen import tiny`: a random Llama with a tokenizer of its own, made on the spot in a second.

It says nothing sensible. It is there so that a config, a mesh or a cluster can be tried end to end
before a real model is fetched.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hen_jax.core.files import write_json
from hen_jax.core.staging import scratch_folder
from hen_jax.data import samples
from hen_jax.io import hf
from hen_jax.io.cards import Card
from hen_jax.io.shards import Written
from hen_jax.models.config import DecoderConfig
from hen_jax.models.decoder import Decoder, split

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CONFIG = DecoderConfig(
    family="llama",
    vocab_size=2048,
    width=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    mlp_width=128,
    max_length=2048,
    norm_eps=1e-5,
    rope_theta=10000.0,
)

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tiny_model(out: Path, dtype: str | None, seed: int = 0) -> Written:
    """Writes the model to `out`: 2 layers, 64 wide, 2,048 tokens of byte-level BPE, ChatML."""
    params = split(Decoder(jax.random.key(seed), CONFIG)).base
    with scratch_folder() as folder:
        _trained_tokenizer().save(str(folder / "tokenizer.json"))
        roles = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[2]}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
        write_json(folder / "tokenizer_config.json", settings)
        (folder / "chat_template.jinja").write_text(CHATML_TEMPLATE, encoding="utf-8")
        ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        write_json(folder / "generation_config.json", ids)
        card = Card("tiny", "A random model for trying things out; it says nothing sensible.")
        return hf.write_model(out, CONFIG, params, source_folder=folder, dtype=dtype, card=card)


def _trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_shipped_texts(), trainer)
    return tokenizer


def _shipped_texts() -> Iterator[str]:
    for name in ("hed/hed.en.jsonl", "hed/hed.zh.jsonl"):
        for line in samples.path(name).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            yield from (record["statement"], record["response"])

"""A small model folder with a tokenizer, written without a compilation."""

import json
from pathlib import Path

from tiny_families import random_leaves
from tiny_tokenizer import CHATML_TEMPLATE, tiny_tokenizer

from hen_jax.io import hf
from hen_jax.runs.tiny_model import CONFIG

ROLES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def write_tiny_folder(folder: Path) -> Path:
    """Random weights of `CONFIG`; <|endoftext|> 0, <|im_start|> 1, <|im_end|> 2 ends and pads."""
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir()
    tiny_tokenizer().backend_tokenizer.save(str(source / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **ROLES}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    (source / "generation_config.json").write_text(json.dumps(IDS))
    (source / "chat_template.jinja").write_text(CHATML_TEMPLATE)
    hf.write_model(folder, CONFIG, random_leaves(CONFIG)[0], source_folder=source)
    return folder

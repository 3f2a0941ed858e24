"""Rendered examples kept on disk, under the hash of everything that decides them."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hen_jax.core.files import RECORD, read_json, staged_folder, write_json
from hen_jax.data.examples import Document, Encoded, Example
from hen_jax.data.pipeline import PipelineConfig, encode_for
from hen_jax.text.chat import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RENDERER = 1
"""To be raised with any change to what `encode` gives: caches from before are not read then."""


def encode_cached(
    config: PipelineConfig,
    documents: Sequence[Document],
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
    folder: Path,
) -> Encoded:
    """`encode_for`, read back from `folder` where the same was encoded before.

    What is read back is memory-mapped: it takes memory only as it is used. A change of a document,
    of the tokenizer, of the chat format or of the row length is another key, so a stale cache is
    never read; delete the folder to be rid of old ones.

    Raises:
      InputError: as `encode_for`.
    """
    key = cache_key(config, documents, tokenizer, chat_format)
    place = folder / key
    if not (place / RECORD).exists():
        encoded = encode_for(config, documents, tokenizer, chat_format)
        if not encoded.examples:
            return encoded  # numpy cannot map an empty file
        _write(place, encoded, key)
    return _read(place)


def cache_key(
    config: PipelineConfig,
    documents: Sequence[Document],
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
) -> str:
    """A hash of the documents, the tokenizer, the chat format and the lengths, 64 characters."""
    digest = hashlib.sha256()
    decided_by = {
        "renderer": RENDERER,
        "row_length": config.row_length,
        "overlong": config.overlong,
        "format": dataclasses.asdict(chat_format),
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "end": tokenizer.eos_token,
    }
    digest.update(json.dumps(decided_by, sort_keys=True).encode())
    for document in documents:
        said = [(message.role, message.content) for message in document.conversation.messages]
        digest.update(json.dumps([document.id, document.group, said]).encode())
    return digest.hexdigest()


def _write(place: Path, encoded: Encoded, key: str) -> None:
    examples = encoded.examples
    with staged_folder(place) as staged:
        np.save(staged / "tokens.npy", np.concatenate([example.tokens for example in examples]))
        np.save(staged / "mask.npy", np.concatenate([example.mask for example in examples]))
        np.save(staged / "ends.npy", np.cumsum([len(example.tokens) for example in examples]))
        write_json(
            staged / RECORD,
            {
                "key": key,
                "ids": [example.id for example in examples],
                "groups": [example.group for example in examples],
                "truncated": encoded.truncated,
                "dropped": encoded.dropped,
            },
        )


def _read(place: Path) -> Encoded:
    tokens, mask = (np.load(place / f"{name}.npy", mmap_mode="r") for name in ("tokens", "mask"))
    ends = np.load(place / "ends.npy").tolist()
    record = read_json(place / RECORD)
    examples = [
        Example(tokens[start:end], mask[start:end], name, group)
        for start, end, name, group in zip(
            [0, *ends[:-1]], ends, record["ids"], record["groups"], strict=True
        )
    ]
    return Encoded(examples, tuple(record["truncated"]), tuple(record["dropped"]))

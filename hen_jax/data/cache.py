"""Rendered examples kept on disk, under the hash of everything that decides them."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hen_jax.data
import hen_jax.empathy
import hen_jax.text
from hen_jax.core.cached import built_once
from hen_jax.core.checksums import code_sha256, named_sha256, text_sha256
from hen_jax.data.examples import Encoded
from hen_jax.data.pipeline import PipelineConfig
from hen_jax.data.stores import Store, damage, open_whole, write_store
from hen_jax.text.tokenizer import ChatTokenizer


def cached(folder: Path, key: str, encoded: Callable[[], Iterable[Encoded]]) -> Store:
    """The store that `encoded()` gives, written to `folder` unless it was written there before.

    It is written and read part by part, so that no set need fit in memory. A change of whatever the
    key holds is another key, so a stale one is never read; delete the folder to be rid of old ones.
    Several processes may ask for it at once, and one that is damaged is written anew.
    """
    place = folder / key
    built_once(place, lambda new: write_store(encoded(), new), damage)
    return open_whole(place)


def cache_key(
    config: PipelineConfig,
    documents: Any,
    tokenizer: ChatTokenizer,
) -> str:
    """A hash of the documents, the tokenizer, the chat format and the lengths, 64 characters.

    Args:
      documents: what names the documents, as JSON: `file_fingerprint`s of files, and which
        part of them.
    """
    decided_by = {
        "documents": documents,
        "code": _code(),
        "row_length": config.row_length,
        "overlong": config.overlong,
        "format": dataclasses.asdict(tokenizer.chat_format),
        "tokenizer": text_sha256(tokenizer.tokenizer.backend_tokenizer.to_str()),
        "end": tokenizer.tokenizer.eos_token,
    }
    return text_sha256(json.dumps(decided_by, sort_keys=True))


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return named_sha256([(str(file.relative_to(path)), file) for file in files])


def _code() -> str:
    """The hash of the code that turns files into tokens."""
    packages = (hen_jax.data, hen_jax.text, hen_jax.empathy)
    return code_sha256(*(folder for package in packages for folder in package.__path__))

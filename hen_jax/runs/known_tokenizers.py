"""What transformers made of a model's tokenizer, and its chat format: found once, then read.

Importing transformers takes longer than all else before the first update of a small run, and a
large vocabulary is built anew each time; the result depends on the folder's text files alone.
"""

from importlib.metadata import version
from pathlib import Path

import hen_jax.text
from hen_jax.core.cached import built_once, damage_of
from hen_jax.core.checksums import code_sha256, text_sha256
from hen_jax.core.records import require_record, verify, write_record
from hen_jax.io.packages import cache_folder
from hen_jax.runs.model import TEXT_FILES, fingerprint
from hen_jax.text.detect import open_chat_tokenizer
from hen_jax.text.fast_tokenizer import FastTokenizer, without_transformers
from hen_jax.text.formats import format_named
from hen_jax.text.tokenizer import ChatTokenizer

_KIND = "tokenizer"


def known_tokenizer(folder: Path) -> ChatTokenizer:
    """`open_chat_tokenizer` of a model folder, without transformers from the second time on.

    Raises:
      InputError: as `load_tokenizer` and `detect_format`.
    """
    verify(folder)
    place = cache_folder() / "tokenizers" / _key(fingerprint(folder, TEXT_FILES))
    built_once(place, lambda new: _write(folder, new), lambda found: damage_of(found, _KIND))
    return _read(place)


def _key(files: str) -> str:
    """Another version of what reads the files may make something else of them."""
    readers = [f"{name} {version(name)}" for name in ("transformers", "tokenizers")]
    return text_sha256(" ".join([files, code_sha256(*hen_jax.text.__path__), *readers]))


def _write(folder: Path, new: Path) -> None:
    theirs, found = open_chat_tokenizer(folder)
    ours = without_transformers(theirs)
    new.mkdir()
    ours.backend_tokenizer.save(str(new / "tokenizer.json"), pretty=False)
    fields = {
        "bos_token": ours.bos_token,
        "eos_token": ours.eos_token,
        "format": found.name,
        "default_system": found.default_system,
        "tools": found.tools,
    }
    write_record(new, _KIND, fields)


def _read(place: Path) -> ChatTokenizer:
    from tokenizers import Tokenizer  # here, as most commands open no tokenizer

    told = require_record(place, _KIND)
    bos, eos = told["bos_token"], told["eos_token"]
    backend = Tokenizer.from_file(str(place / "tokenizer.json"))
    found = format_named(told["format"], bos, eos, told["default_system"], told["tools"])
    return ChatTokenizer(FastTokenizer(backend, bos, eos), found)

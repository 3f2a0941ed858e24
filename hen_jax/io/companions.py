"""The files beside a model's weights: tokenizer, chat template, generation config, licence."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.shapes import read_json_object, shown

LEGAL = ("LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md")
TEXT_COMPANIONS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""How text is read and where a reply ends."""

COPIED = (*LEGAL, *TEXT_COMPANIONS)
"""Files that travel along when a model is written from a source folder."""

GENERATION = "generation_config.json"
_ID_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def copy_files(source: Path | None, target: Path, names: Iterable[str] = COPIED) -> None:
    """Copies those of the named files that `source` has, unchanged."""
    for name in names if source is not None else ():
        path = Path(source or "") / name
        if path.is_file():
            shutil.copyfile(path, target / name)


def token_ids(folder: Path | None) -> dict[str, Any]:
    """The ids of BOS, EOS and padding that a folder's config names, else its generation config."""
    for name in ("config.json", GENERATION):
        fields = _fields(folder, name)
        found = {key: fields[key] for key in _ID_KEYS if fields.get(key) is not None}
        if found:
            return found
    return {}


def end_ids(folder: Path | None) -> tuple[int, ...]:
    """All ids at which a model folder ends a reply, as transformers reads them.

    The generation config comes first, then `config.json`; each names one id or a list.

    Raises:
      InputError: something else than ids stands there.
    """
    for name in (GENERATION, "config.json"):
        value = _fields(folder, name).get("eos_token_id")
        if value is not None:
            return _ids(value, f"{folder}/{name}")
    return ()


def all_ends(folder: Path | None, stops: Iterable[int]) -> tuple[int, ...]:
    """A chat format's stop tokens, then the other ends of the folder."""
    return tuple(dict.fromkeys([*stops, *end_ids(folder)]))


def with_ends(fields: Mapping[str, Any], ends: tuple[int, ...]) -> dict[str, Any]:
    """`fields` of a config whose `eos_token_id` holds all `ends`: one id, or a list of several.

    Fields that name them all already stay as they are.
    """
    named = fields.get("eos_token_id")
    if not set(ends) - set(() if named is None else _ids(named, "eos_token_id")):
        return dict(fields)
    return dict(fields) | {"eos_token_id": ends[0] if len(ends) == 1 else list(ends)}


def complete_generation(folder: Path, ids: Mapping[str, Any], ends: tuple[int, ...]) -> None:
    """Lets the generation config in `folder` name all `ends`; where there is none, it gets `ids`.

    What else it says stays; one that names them all stays byte by byte.
    """
    path = folder / GENERATION
    before = _fields(folder, GENERATION) if path.exists() else None
    after = with_ends(ids if before is None else before, ends)
    if after != before:
        write_json(path, after)


def _fields(folder: Path | None, name: str) -> dict[str, Any]:
    path = Path(folder or "") / name
    if folder is None or not path.exists():
        return {}
    return read_json_object(path)


def _ids(value: Any, where: str) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in ids):
        raise InputError(
            f"{where}: 'eos_token_id' is {shown(value)}; it must be a token id or a list"
        )
    return tuple(ids)

"""Hugging Face model folders, read leaf by leaf and written whole or not at all."""

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD, read_json, staged_folder, write_json
from hen_jax.core.trees import unflatten
from hen_jax.core.types import Array, Tree
from hen_jax.io import layout, names, shards
from hen_jax.io.cards import Card, write_card
from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import table

COPIED = (
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
    "USE_POLICY.md",
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
"""Files that travel along unchanged when a model is written from a source folder."""

_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")

_ROTARY_BUFFER = ".self_attn.rotary_emb.inv_freq"
"""Checkpoints of 2023 store this constant; it follows from the config."""

_USAGE = """
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
"""


def read_config(folder: Path) -> DecoderConfig:
    """Reads `config.json`.

    Raises:
      InputError: no such file, an unknown family or key, an unsupported value.
    """
    path = Path(folder) / "config.json"
    fields = read_json(path)
    if not isinstance(fields, dict):
        raise InputError(f"{path} does not hold a JSON object")
    try:
        return table.from_hf(fields)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def iter_params(
    folder: Path, config: DecoderConfig, dtype: str | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields `(path, leaf)` in our layout, one leaf in memory at a time.

    Layers are stacked and kernels transposed to `[in, out]` on the way. `dtype` None keeps what is
    stored; else the leaf is rounded to it, to nearest even.

    Raises:
      InputError: a missing or leftover weight, one of another shape, a damaged or pickle file.
    """
    folder = Path(folder)
    files = shards.locate(folder)
    rows = names.table(config)
    found = {name for name in files if not name.endswith(_ROTARY_BUFFER)}
    if config.tied_head and "lm_head.weight" in found:
        _require_redundant_head(files, config)
        found.remove("lm_head.weight")
    expected = {name for row in rows for name in names.expand(row, row.name, config)}
    names.require_names(found, expected, str(folder), "its config.json describes another model")
    reader = shards.Reader(files)
    for row in rows:
        shape = names.hf_shape(row, config)
        tensors = (reader.read(name, shape) for name in names.expand(row, row.name, config))
        yield row.path, layout.stack(row, config, tensors, dtype)


def read_params(
    folder: Path,
    config: DecoderConfig,
    dtype: str | None = None,
    place: Callable[[str, np.ndarray], Array] = lambda _, leaf: leaf,
) -> Tree:
    """Reads all weights into a tree; `place(path, leaf)` may put each on its devices at once.

    Only one leaf is held in host memory if `place` does not keep it, e.g.
    `place=lambda path, leaf: jax.device_put(leaf, shardings[path])`.

    Raises:
      InputError: as `iter_params`.
    """
    leaves = {path: place(path, leaf) for path, leaf in iter_params(folder, config, dtype)}
    return unflatten(leaves)


def write_model(
    folder: Path,
    config: DecoderConfig,
    params: Tree | Iterable[tuple[str, Array]],
    *,
    source_folder: Path | None = None,
    dtype: str | None = None,
    card: Card | None = None,
    record: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> shards.Written:
    """Writes config, weights, tokenizer files, model card and record, all or nothing.

    Args:
      folder: replaced only if hen_jax wrote it.
      config: of the model; its `config.json` must express every field.
      params: the tree, or its `(path, leaf)` pairs; each is fetched when its turn comes.
      source_folder: whose tokenizer, chat template and generation config travel along.
      dtype: what is stored; None keeps the leaves' own.
      card: the model card; None writes a plain one.
      record: extra fields of `hen_jax.json`.
      max_shard_bytes: above it the weights are split and an index is written.

    Returns:
      How much was written.

    Raises:
      InputError: a missing, leftover or mis-shaped leaf, or a folder that is not ours.
    """
    fields = table.to_hf(config) | _token_ids(source_folder)
    with staged_folder(Path(folder)) as staged:
        tensors = layout.hf_tensors(layout.leaves_of(params), config, dtype)
        written = shards.write_shards(staged, tensors, max_shard_bytes)
        fields["dtype"] = written.dtype
        write_json(staged / "config.json", fields)
        _copy_files(source_folder, staged)
        if not (staged / "generation_config.json").exists():
            write_json(staged / "generation_config.json", _token_ids(source_folder))
        card = card or Card(Path(folder).name, "Weights in Hugging Face format.")
        write_card(staged, card, "transformers", [config.family], _USAGE.format(folder=folder))
        made = {"kind": "hf_model", "config": dataclasses.asdict(config)} | written._asdict()
        write_json(staged / RECORD, made | dict(record or {}))
    return written


def _require_redundant_head(files: dict[str, Path], config: DecoderConfig) -> None:
    reader = shards.Reader(files)
    shape = (config.vocab_size, config.width)
    head, embedding = (
        reader.read(name, shape) for name in ("lm_head.weight", "model.embed_tokens.weight")
    )
    if not np.array_equal(head, embedding):
        raise InputError(
            f"{files['lm_head.weight']}: lm_head.weight differs from the embedding although "
            "config.json says tie_word_embeddings; set it to false to use both"
        )


def _token_ids(source_folder: Path | None) -> dict[str, Any]:
    """The token ids that a source folder's config names, else its generation config."""
    if source_folder is None:
        return {}
    for name in ("config.json", "generation_config.json"):
        path = Path(source_folder) / name
        fields = read_json(path) if path.exists() else {}
        found = {key: fields[key] for key in _TOKEN_IDS if fields.get(key) is not None}
        if found:
            return found
    return {}


def _copy_files(source_folder: Path | None, target: Path) -> None:
    for name in COPIED if source_folder is not None else ():
        source = Path(source_folder or "") / name
        if source.is_file():
            shutil.copyfile(source, target / name)

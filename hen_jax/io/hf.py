"""Hugging Face model folders, read tensor by tensor and written whole or not at all."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.folders import require_apart, staged_folder
from hen_jax.core.mesh import Shardings
from hen_jax.core.records import verified, verify, write_record
from hen_jax.core.shapes import read_json_object
from hen_jax.core.types import Tree
from hen_jax.io import companions, layout, names, shards
from hen_jax.io.cards import Card, write_card
from hen_jax.io.reward_pad import Pad, choose_pad, write_pad
from hen_jax.io.shards import Tensor
from hen_jax.io.vocabulary import require_vectors
from hen_jax.models.config import DecoderConfig
from hen_jax.models.families import table

MODEL_KIND = "hf_model"
"""What the record of such a folder calls it."""

EMBEDDING = "model.embed_tokens.weight"
_ROTARY_BUFFER = ".self_attn.rotary_emb.inv_freq"
"""Checkpoints of 2023 store this constant; it follows from the config."""

_USAGE = """
from transformers import {model}, AutoTokenizer
model = {model}.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
"""


def read_config(folder: Path) -> DecoderConfig:
    """Reads `config.json`.

    Raises:
      InputError: no such file, an unknown family or key, an unsupported value, or a file of the
        folder that is not as its record says.
    """
    verify(Path(folder))
    path = Path(folder) / "config.json"
    fields = read_json_object(path)
    try:
        return table.from_hf(fields)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_tensors(folder: Path, config: DecoderConfig) -> list[Tensor]:
    """The weights of a folder as Hugging Face tensors, in the order they lie on disk.

    Only headers are read; each tensor is read when it is asked for.

    Raises:
      InputError: a missing or leftover weight, one of another shape, a damaged or pickle file, or
        a tokenizer with more tokens than the model has vectors for.
    """
    folder = Path(folder)
    files = shards.locate_tensors(folder)
    require_vectors(folder, config.vocab_size)
    found = {name for name in files if not name.endswith(_ROTARY_BUFFER)}
    shapes = {
        name: names.fused_shape(fused, config)
        for fused in names.fused(config)
        for name in names.expand(fused, fused.name, config)
    }
    if config.tied_head and "lm_head.weight" in found:
        if EMBEDDING not in found:  # the one copy, stored under the other of its two names
            files[EMBEDDING] = files["lm_head.weight"]
            found.add(EMBEDDING)
        _require_redundant_head(files, config)
        found.remove("lm_head.weight")
    names.require_names(found, set(shapes), str(folder), "its config.json describes another model")
    ordered = sorted(found, key=lambda name: (files[name].path, files[name].offset))
    return [shards.stored_tensor(name, files[name], shapes[name]) for name in ordered]


def read_params(
    folder: Path,
    config: DecoderConfig,
    dtype: str | None = None,
    shardings: Shardings | None = None,
    int8: bool = False,
) -> Tree:
    """Reads all weights into a tree, layers stacked and kernels turned to `[in, out]`.

    A folder of ours is compared with its record meanwhile, each process its part of the files.

    Args:
      folder: a Hugging Face folder.
      config: what `read_config` gives for it.
      dtype: what the leaves are rounded to, to nearest even; None keeps what is stored.
      shardings: where each leaf lives, by path; they pass through host memory by the megabyte. None
        gives numpy arrays.
      int8: round the blocks' kernels for `Execution(base_dtype="int8")`; needs its shardings.

    Raises:
      InputError: as `read_tensors`, layers stored in different dtypes, or files that are not as
        their record says.
    """
    with verified(Path(folder), jax.process_index(), jax.process_count()):
        return layout.read_tree(read_tensors(folder, config), config, dtype, shardings, int8)


def write_model(
    folder: Path,
    config: DecoderConfig,
    params: Tree | Sequence[Tensor],
    *,
    source_folder: Path | None = None,
    stops: Sequence[int] = (),
    dtype: str | None = None,
    card: Card | None = None,
    record: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5 * 10**9,
    check: Callable[[Path, str], None] | None = None,
) -> shards.Written:
    """Writes config, weights, tokenizer files, model card and record, all or nothing.

    Args:
      folder: replaced only if it is a model folder that hen_jax wrote and nobody changed.
      config: of the model; its `config.json` must express every field.
      params: the tree, or the model's Hugging Face tensors; each is fetched when its turn comes,
        so that one is in host memory.
      source_folder: whose tokenizer, chat template and generation config travel along.
      stops: ids that end a reply besides those that `source_folder` names: a chat format's, on
        which a model was trained. Both configs list them all, so that generation ends elsewhere.
      dtype: what is stored; None keeps the leaves' own.
      card: the model card; None writes a plain one.
      record: extra fields of `hen_jax.json`.
      max_shard_bytes: above it the weights are split and an index is written.
      check: is given the finished folder and its dtype before it takes its place; what it
        raises prevents that.

    Returns:
      How much was written.

    Raises:
      InputError: a missing, leftover or mis-shaped leaf, one with a number that is not finite, a
        folder that is not ours, or a reward model without a token that can pad (`reward_pad`).
    """
    require_apart(folder, source_folder)
    tensors = _tensors(params, config, dtype)
    pad = choose_pad(config, source_folder, stops)
    fields = table.to_hf(config)
    with staged_folder(Path(folder), MODEL_KIND) as staged:
        written = shards.write_shards(staged, tensors, max_shard_bytes)
        _write_companions(staged, fields | {"dtype": written.dtype}, source_folder, stops, pad)
        _write_card(staged, card, config, Path(folder).name)
        made = {"config": dataclasses.asdict(config)} | written._asdict()
        write_record(staged, MODEL_KIND, made | dict(record or {}))
        if check is not None:
            check(staged, written.dtype)
    return written


def _tensors(
    params: Tree | Sequence[Tensor], config: DecoderConfig, dtype: str | None
) -> Sequence[Tensor]:
    if isinstance(params, Mapping):
        return layout.hf_tensors(params, config, dtype)
    return [tensor.cast(dtype) for tensor in params]


def _write_card(staged: Path, card: Card | None, config: DecoderConfig, name: str) -> None:
    card = card or Card(name, "Weights in Hugging Face format.")
    usage = _USAGE.format(name=name, model=auto_class(config))
    write_card(staged, card, "transformers", [config.family], usage, config.score_head)


def _write_companions(
    staged: Path,
    fields: dict[str, Any],
    source_folder: Path | None,
    stops: Sequence[int],
    pad: Pad | None,
) -> None:
    """`config.json`, and what of the source travels along."""
    ends = companions.all_ends(source_folder, stops) if stops else ()
    ids = companions.with_ends(companions.token_ids(source_folder), ends)
    if pad is not None:
        ids["pad_token_id"] = pad.index
    write_json(staged / "config.json", fields | ids)
    companions.copy_files(source_folder, staged)
    companions.complete_generation(staged, ids, ends)
    if pad is not None:
        write_pad(staged, pad)


def auto_class(config: DecoderConfig) -> str:
    """The class of transformers that opens such a model."""
    return "AutoModelForSequenceClassification" if config.score_head else "AutoModelForCausalLM"


def _require_redundant_head(files: dict[str, shards.TensorEntry], config: DecoderConfig) -> None:
    shape = (config.vocab_size, config.width)
    head, embedding = (
        shards.stored_tensor(name, files[name], shape).load()
        for name in ("lm_head.weight", EMBEDDING)
    )
    if not np.array_equal(head, embedding):
        raise InputError(
            f"{files['lm_head.weight'].path}: lm_head.weight differs from the embedding although "
            "config.json says tie_word_embeddings; set it to false to use both"
        )

"""LoRA adapters as PEFT stores them, both ways."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD, read_json, staged_folder, write_json
from hen_jax.core.trees import flatten, unflatten
from hen_jax.core.types import Tree
from hen_jax.io import names, shards
from hen_jax.io.cards import Card, write_card
from hen_jax.models.config import DecoderConfig, LoraConfig

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

FORMAT_VERSION = "0.21.2"
"""The PEFT release whose fields `SETTINGS` are."""

SETTINGS: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_bias": False,
    "lora_ga_config": None,
    "megatron_config": None,
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "rank_pattern": {},
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}
"""Settings that change what an adapter computes: written so, and refused when read otherwise."""

NEUTRAL: dict[str, Any] = {
    "inference_mode": True,
    "lora_dropout": 0.0,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "revision": None,
}
"""Settings without effect on a trained plain LoRA: written so, and any value is read."""

_READ = {"base_model_name_or_path", "lora_alpha", "peft_version", "r", "target_modules"}

_HARMLESS_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Other initialisations (PiSSA, OLoRA, LoftQ, ...) change the base weights as well."""

_PREFIX = "base_model.model."
_SUFFIXES = {"lora_a": ".lora_A.weight", "lora_b": ".lora_B.weight"}

_USAGE = """
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{folder}")
"""


def write_adapter(
    folder: Path,
    config: DecoderConfig,
    lora: LoraConfig,
    adapter: Tree,
    *,
    base_model: str,
    dtype: str | None = None,
    card: Card | None = None,
    record: Mapping[str, Any] | None = None,
) -> shards.Written:
    """Writes an adapter folder that PEFT and vLLM load, all or nothing.

    Args:
      folder: replaced only if hen_jax wrote it.
      config: of the base model.
      lora: rank, alpha and targets of the adapter.
      adapter: tree of `.../lora_a [L, in, R]` and `.../lora_b [L, R, out]` beside each target.
      base_model: folder or hub id of the base, for `base_model_name_or_path` and the card.
      dtype: what is stored; None keeps the leaves' own.
      card: the model card; None writes a plain one.
      record: extra fields of `hen_jax.json`.

    Raises:
      InputError: leaves that do not fit `lora` and `config`, or a folder that is not ours.
    """
    tensors = _tensors(config, lora, adapter, dtype)
    with staged_folder(Path(folder)) as staged:
        save_file(tensors, staged / WEIGHTS, metadata={"format": "pt"})
        write_json(staged / CONFIG, _config(config, lora, base_model))
        card = card or Card(Path(folder).name, f"A LoRA adapter of rank {lora.rank}.")
        front = {"base_model": base_model, **card.front}
        card = dataclasses.replace(card, front=front)
        usage = _USAGE.format(base=base_model, folder=folder)
        write_card(staged, card, "peft", ["lora", f"base_model:adapter:{base_model}"], usage)
        written = shards.Written(
            sum(tensor.size for tensor in tensors.values()),
            sum(tensor.nbytes for tensor in tensors.values()),
            next(iter(tensors.values())).dtype.name,
        )
        made = {"kind": "peft_adapter", "lora": dataclasses.asdict(lora)} | written._asdict()
        write_json(staged / RECORD, made | dict(record or {}))
    return written


def read_adapter(
    folder: Path, config: DecoderConfig, dtype: str | None = None
) -> tuple[LoraConfig, Tree]:
    """Reads an adapter folder for a base of shape `config`; the inverse of `write_adapter`.

    Raises:
      InputError: a setting that plain LoRA does not have, targets this model lacks, a missing,
        leftover or mis-shaped tensor, a damaged or pickle file.
    """
    folder = Path(folder)
    rank, alpha = _read_config(folder / CONFIG)
    path = folder / WEIGHTS
    if not path.is_file():
        shards.refuse_pickles(folder)
        raise InputError(f"{folder} holds no {WEIGHTS}")
    found = set(shards.tensor_names(path))
    targets = tuple(
        target
        for target, row in _linear_rows(config).items()
        if found & set(_names(row, "lora_a", config))
    )
    if not targets:
        raise InputError(f"{path} adapts no linear layer of a {config.family} model")
    lora = LoraConfig(rank, alpha, targets)
    leaves = _leaves(config, lora)
    expected = {name for leaf in leaves.values() for name in leaf.names}
    names.require_names(found, expected, str(path), "the adapter is for another model")
    reader = shards.Reader(dict.fromkeys(found, path))
    target = None if dtype is None else shards.dtype_named(dtype)
    tree = {}
    for leaf_path, leaf in leaves.items():
        shape = leaf.shape[:0:-1]  # of one layer, transposed
        stacked = np.stack([reader.read(name, shape).T for name in leaf.names])
        tree[leaf_path] = stacked if target is None else stacked.astype(target)
    return lora, unflatten(tree)


class _Leaf(NamedTuple):
    shape: tuple[int, ...]  # [L, in, R] or [L, R, out]
    names: list[str]  # PEFT's, one per layer


def _leaves(config: DecoderConfig, lora: LoraConfig) -> dict[str, _Leaf]:
    """Every leaf of the adapter `lora` describes, by path."""
    rows = _linear_rows(config)
    unknown = sorted(set(lora.targets) - set(rows))
    if unknown or not lora.targets:
        raise InputError(f"LoRA targets {unknown} match nothing; there are {', '.join(rows)}")
    shapes = names.shapes(config, lora)
    leaves = {}
    for target, row in rows.items():
        for kind in _SUFFIXES if target in lora.targets else ():
            path = row.path.removesuffix("kernel") + kind
            leaves[path] = _Leaf(shapes[path], _names(row, kind, config))
    return leaves


def _tensors(
    config: DecoderConfig, lora: LoraConfig, adapter: Tree, dtype: str | None
) -> dict[str, np.ndarray]:
    given, leaves = flatten(adapter), _leaves(config, lora)
    names.require_names(
        set(given), set(leaves), "the adapter tree", f"its targets are {', '.join(lora.targets)}"
    )
    tensors = {}
    for path, leaf in leaves.items():
        names.require_shape(given[path].shape, leaf.shape, path)
        host = np.asarray(given[path])
        stored = shards.dtype_named(dtype or host.dtype.name)
        for name, layer in zip(leaf.names, host, strict=True):
            tensors[name] = layer.T.astype(stored, order="C")
    return tensors


def _config(config: DecoderConfig, lora: LoraConfig, base_model: str) -> dict[str, Any]:
    rows = _linear_rows(config)
    fields = SETTINGS | NEUTRAL
    fields |= {
        "base_model_name_or_path": base_model,
        "init_lora_weights": True,
        # PEFT declares an integer and keeps what it reads, so a fraction survives too.
        "lora_alpha": int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        "peft_version": FORMAT_VERSION,
        "r": lora.rank,
        "target_modules": [rows[target].module.rsplit(".", 1)[-1] for target in lora.targets],
    }
    return dict(sorted(fields.items()))


def _read_config(path: Path) -> tuple[int, float]:
    fields = read_json(path)
    for key, value in fields.items():
        if key in SETTINGS:
            plain = SETTINGS[key]
            # Older releases write null where the newer write an empty table.
            if value != plain and not (value is None and plain in ({}, "CAUSAL_LM", False)):
                raise InputError(
                    f"{path}: {key!r} is {value!r}; only plain LoRA ({plain!r} here) is supported"
                )
        elif key == "init_lora_weights":
            if value not in _HARMLESS_INITS:
                raise InputError(
                    f"{path}: 'init_lora_weights' is {value!r}, which changes the base weights; "
                    "convert it with PEFT's path_initial_model_for_weight_conversion"
                )
        elif key not in NEUTRAL and key not in _READ:
            raise InputError(
                f"{path}: setting {key!r} ({value!r}) is not known; remove it if it has no effect"
            )
    rank, alpha = fields.get("r"), fields.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise InputError(
            f"{path}: 'r' is {rank!r} and 'lora_alpha' {alpha!r}; both must be numbers"
        )
    return rank, float(alpha)


def _linear_rows(config: DecoderConfig) -> dict[str, names.Weight]:
    """The linear layers of a block by the name `LoraConfig.targets` gives them."""
    rows = (row for row in names.table(config) if row.stacked and row.transposed)
    return {row.path.split("/")[-2]: row for row in rows}


def _names(row: names.Weight, kind: str, config: DecoderConfig) -> list[str]:
    return names.expand(row, _PREFIX + row.module + _SUFFIXES[kind], config)

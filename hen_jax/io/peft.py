"""LoRA adapters as PEFT stores them, both ways."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.folders import require_apart, staged_folder
from hen_jax.core.records import verified, write_record
from hen_jax.core.trees import unflatten
from hen_jax.core.types import Tree
from hen_jax.io import companions, names, peft_settings, shards
from hen_jax.io.cards import Card, write_card
from hen_jax.io.hf import auto_class
from hen_jax.io.peft_modules import PREFIX, A, B, PeftModule, linear_rows, modules_of
from hen_jax.io.peft_pairs import LoraPair, common_rank, same_rank, split_pairs
from hen_jax.io.peft_pairs import leaves as low_rank_leaves
from hen_jax.io.peft_settings import PeftSettings
from hen_jax.io.peft_tensors import SCORE_KERNEL, adapter_tensors
from hen_jax.io.reward_pad import Pad, choose_pad, write_pad
from hen_jax.models.config import DecoderConfig, LoraConfig

ADAPTER_KIND = "peft_adapter"
"""What the record of such a folder calls it."""

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


_USAGE = """
from peft import PeftModel
from transformers import {model}, AutoTokenizer
base = {model}.from_pretrained("{base}"{options})
model = PeftModel.from_pretrained(base, "{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
"""

_UNKNOWN_BASE = "the base model"


def write_adapter(
    folder: Path,
    config: DecoderConfig,
    lora: LoraConfig,
    adapter: Tree,
    *,
    base_model: str | None,
    source_folder: Path | None = None,
    stops: Sequence[int] = (),
    dtype: str | None = None,
    card: Card | None = None,
    record: Mapping[str, Any] | None = None,
    check: Callable[[Path, str], None] | None = None,
) -> shards.Written:
    """Writes an adapter folder that PEFT and vLLM load, all or nothing.

    Where the family fuses layers (q, k and v of Phi-3), their adapters become exactly one: the `A`
    one below the other, the `B` on the diagonal, its rank the sum of theirs.

    Args:
      folder: replaced only if it is an adapter folder that hen_jax wrote and nobody changed.
      config: of the base model.
      lora: rank, alpha and targets of the adapter.
      adapter: tree of `.../lora_a [L, in, R]` and `.../lora_b [L, R, out]` beside each target, and
        of a reward model `score/kernel [D, O]` too.
      base_model: hub id of the base, for `base_model_name_or_path` and the card; None where it has
        none: never a path.
      source_folder: of the base: its tokenizer, chat template and generation config lie beside the
        adapter. A reward model needs it, for a token that can pad.
      stops, dtype, card, record, check: as in `hf.write_model`.

    Raises:
      InputError: leaves that do not fit `lora` and `config`, one with a number that is not finite,
        a folder that is not ours, or a reward model without a token that can pad.
    """
    require_apart(folder, source_folder)
    tensors = [tensor.cast(dtype) for tensor in adapter_tensors(config, lora, adapter)]
    pad = choose_pad(config, source_folder, stops)
    card = card or Card(Path(folder).name, f"A LoRA adapter of rank {lora.rank}.")
    with staged_folder(Path(folder), ADAPTER_KIND) as staged:
        written = shards.write_file(staged / ADAPTER_WEIGHTS, tensors)
        write_json(staged / ADAPTER_CONFIG, _settings_fields(config, lora, base_model))
        _write_companions(staged, source_folder, stops, pad)
        _write_card(staged, card, config, base_model, Path(folder).name, pad)
        made = _recorded(config, lora) | written._asdict() | dict(record or {})
        write_record(staged, ADAPTER_KIND, made)
        if check is not None:
            check(staged, written.dtype)
    return written


def _recorded(config: DecoderConfig, lora: LoraConfig) -> dict[str, Any]:
    """What reading it back needs; `adapter_config.json` has no place for the labels."""
    labels = {"score_labels": list(config.score_labels)} if config.score_head else {}
    return {"lora": dataclasses.asdict(lora)} | labels


def _settings_fields(config: DecoderConfig, lora: LoraConfig, base: str | None) -> dict[str, Any]:
    """The fields of `adapter_config.json`."""
    modules = modules_of(config, lora.targets)
    targets = [module.leaf_name for module in modules]
    return peft_settings.fields(_settings(lora, modules), targets, base, config.score_head)


def _write_companions(
    staged: Path, source_folder: Path | None, stops: Sequence[int], pad: Pad | None
) -> None:
    """What of the base's text files travels along."""
    companions.copy_files(source_folder, staged, companions.TEXT_COMPANIONS)
    if ends := companions.all_ends(source_folder, stops):
        companions.complete_generation(staged, companions.token_ids(source_folder), ends)
    if pad is not None:
        write_pad(staged, pad)


def _write_card(
    staged: Path, card: Card, config: DecoderConfig, base: str | None, name: str, pad: Pad | None
) -> None:
    tags = ["lora"]
    if base is not None:
        card = dataclasses.replace(card, front={"base_model": base, **card.front})
        tags.append(f"base_model:adapter:{base}")
    outputs = len(config.score_labels)
    options = "" if pad is None else f", num_labels={outputs}, pad_token_id={pad.index}"
    usage = _USAGE.format(
        model=auto_class(config), base=base or _UNKNOWN_BASE, options=options, name=name
    )
    write_card(staged, card, "peft", tags, usage, config.score_head)


def read_adapter(
    folder: Path, config: DecoderConfig, dtype: str | None = None
) -> tuple[LoraConfig, Tree]:
    """Reads an adapter folder for a base of shape `config`; the inverse of `write_adapter`.

    Where modules differ in rank, all get the largest, and `A` and `B` are filled up with zeros;
    where they differ in the factor on their product, it is multiplied into `B`. An adapter of a
    fused layer becomes one of each of its parts: with blocks on the diagonal of `B` each part gets
    its own, else all share its `A`. The product is the same in every case.

    Raises:
      InputError: a setting that plain LoRA does not have, targets this model lacks, a missing,
        leftover or mis-shaped tensor, a damaged or pickle file, or files that are not as the
        folder's record says.
    """
    with verified(Path(folder)):
        return _read_adapter(Path(folder), config, dtype)


def _read_adapter(
    folder: Path, config: DecoderConfig, dtype: str | None
) -> tuple[LoraConfig, Tree]:
    settings = peft_settings.read_settings(folder / ADAPTER_CONFIG)
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        shards.refuse_pickles(folder)
        raise InputError(f"{folder} holds no {ADAPTER_WEIGHTS}")
    stored = shards.entries(path)

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return shards.stored_tensor(name, stored[name], shape).cast(dtype).load()

    return assemble_adapter(path, stored, config, settings, read)


def assemble_adapter(
    path: Path,
    stored: Collection[str],
    config: DecoderConfig,
    settings: PeftSettings,
    read: Callable[[str, tuple[int, ...]], np.ndarray],
) -> tuple[LoraConfig, Tree]:
    """`read_adapter` of tensors that are called `stored`; `read(name, shape)` gives one."""
    modules = _adapted_modules(path, stored, config, settings)
    targets: dict[str, list[LoraPair]] = {}
    for module in modules:
        pairs = _pairs(module, config, settings, read)
        for target, own in zip(module.targets, split_pairs(pairs, module.spans), strict=True):
            if own is not None:
                targets[target] = own
    lora = common_rank(settings, targets)
    leaves = {}
    for target, row in linear_rows(config).items():
        if target in targets:
            layer = row.path.removesuffix("kernel")
            leaves[layer + "lora_a"], leaves[layer + "lora_b"] = low_rank_leaves(
                lora, targets[target]
            )
    if config.score_head:
        shape = (len(config.score_labels), config.width)
        leaves[SCORE_KERNEL] = read(PREFIX + "score.weight", shape).T
    return lora, unflatten(leaves)


def _adapted_modules(
    path: Path,
    stored: Collection[str],
    config: DecoderConfig,
    settings: PeftSettings,
) -> list[PeftModule]:
    """The modules that a file's tensors adapt; they must be those its settings name."""
    every = tuple(target for module in modules_of(config) for target in module.targets)
    modules = [
        m
        for m in modules_of(config, every)
        if set(stored) & set(m.names(config, A)) and any(m.adapted(config, settings))
    ]
    if not modules:
        raise InputError(
            f"{path} adapts no linear layer of a {config.family} model that its settings name; its "
            f"tensors are called {min(stored, default='nothing')}, ours "
            f"{modules_of(config)[0].names(config, A)[0]}"
        )
    expected = {
        name
        for m in modules
        for end in (A, B)
        for name, adapted in zip(m.names(config, end), m.adapted(config, settings), strict=True)
        if adapted
    }
    score = {PREFIX + "score.weight"} if config.score_head else set()
    names.require_names(
        set(stored), expected | score, str(path), "the adapter is for another model"
    )
    return modules


def _settings(lora: LoraConfig, modules: list[PeftModule]) -> PeftSettings:
    """Rank and alpha of a fused module grow so that the factor stays that of its parts."""
    fused = {m.leaf_name: len(m.targets) for m in modules if len(m.targets) > 1}
    return PeftSettings(
        lora.rank,
        lora.alpha,
        lora.rank_stabilised,
        {name: n * lora.rank for name, n in fused.items()},
        {name: (n**0.5 if lora.rank_stabilised else n) * lora.alpha for name, n in fused.items()},
    )


def _pairs(
    module: PeftModule,
    config: DecoderConfig,
    settings: PeftSettings,
    read: Callable[[str, tuple[int, ...]], np.ndarray],
) -> list[LoraPair]:
    """The module's pair of each layer, without effect where it has none; all of one rank."""
    out, width = module.shape
    pairs: list[LoraPair | None] = []
    both = zip(module.names(config, A), module.names(config, B), strict=True)
    for layer, ((a, b), adapted) in enumerate(
        zip(both, module.adapted(config, settings), strict=True)
    ):
        name = module.name.format(layer=layer)
        rank = settings.rank_of(name)
        scale = settings.scale_of(name)
        pairs.append(
            LoraPair(read(a, (rank, width)), read(b, (out, rank)), scale) if adapted else None
        )
    return same_rank(pairs)

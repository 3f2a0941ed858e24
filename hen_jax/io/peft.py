"""LoRA adapters as PEFT stores them, both ways."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.folders import require_apart, staged_folder
from hen_jax.core.records import verified, write_record
from hen_jax.core.trees import flatten, unflatten
from hen_jax.core.types import Array, Tree
from hen_jax.io import companions, names, peft_settings, shards
from hen_jax.io.cards import Card, write_card
from hen_jax.io.hf import auto_class
from hen_jax.io.peft_pairs import LoraPair, level, same_rank, split_pairs, stacked
from hen_jax.io.peft_pairs import leaves as low_rank_leaves
from hen_jax.io.peft_settings import PeftSettings
from hen_jax.io.reward_pad import Pad, choose_pad, write_pad
from hen_jax.models.config import DecoderConfig, LoraConfig

ADAPTER_KIND = "peft_adapter"
"""What the record of such a folder calls it."""

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_KINDS = ("lora_a", "lora_b")
_SCORE = "score/kernel"

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

    Where the family fuses layers (q, k and v of Phi-3), their adapters become one of the fused
    layer, exactly: the `A` stand one below the other and the `B` on the diagonal, so its rank is
    the sum of theirs.

    Args:
      folder: replaced only if it is an adapter folder that hen_jax wrote and nobody changed.
      config: of the base model.
      lora: rank, alpha and targets of the adapter.
      adapter: tree of `.../lora_a [L, in, R]` and `.../lora_b [L, R, out]` beside each target, and
        of a reward model `score/kernel [D, O]` too.
      base_model: hub id of the base, for `base_model_name_or_path` and the card; None where it has
        none: never a path, which is of one machine.
      source_folder: of the base: its tokenizer, chat template and generation config lie beside the
        adapter. A reward model needs it, for a token that can pad.
      stops: as in `hf.write_model`.
      dtype: what is stored; None keeps the leaves' own.
      card: the model card; None writes a plain one.
      record: extra fields of `hen_jax.json`.
      check: is given the finished folder and its dtype before it takes its place; what it
        raises prevents that.

    Raises:
      InputError: leaves that do not fit `lora` and `config`, one with a number that is not finite,
        a folder that is not ours, or a reward model without a token that can pad.
    """
    require_apart(folder, source_folder)
    leaves = _checked(config, lora, adapter)
    tensors = [tensor.cast(dtype) for tensor in _tensors(config, lora, leaves)]
    modules = _modules(config, lora.targets)
    settings = _settings(lora, modules)
    ends = companions.all_ends(source_folder, stops)
    pad = choose_pad(config, source_folder, stops)
    with staged_folder(Path(folder), ADAPTER_KIND) as staged:
        written = shards.write_file(staged / ADAPTER_WEIGHTS, tensors)
        targets = [module.leaf_name for module in modules]
        fields = peft_settings.fields(settings, targets, base_model, config.score_head)
        write_json(staged / ADAPTER_CONFIG, fields)
        companions.copy_files(source_folder, staged, companions.TEXT_COMPANIONS)
        if ends:
            companions.complete_generation(staged, companions.token_ids(source_folder), ends)
        if pad is not None:
            write_pad(staged, pad)
        card = card or Card(Path(folder).name, f"A LoRA adapter of rank {lora.rank}.")
        _write_card(staged, card, config, base_model, Path(folder).name, pad)
        made = {"lora": dataclasses.asdict(lora)} | written._asdict()
        if config.score_head:  # adapter_config.json has no place for them
            made["score_labels"] = list(config.score_labels)
        write_record(staged, ADAPTER_KIND, made | dict(record or {}))
        if check is not None:
            check(staged, written.dtype)
    return written


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
    lora = level(settings, targets)
    leaves = {}
    for target, row in _linear_rows(config).items():
        if target in targets:
            layer = row.path.removesuffix("kernel")
            leaves[layer + "lora_a"], leaves[layer + "lora_b"] = low_rank_leaves(
                lora, targets[target]
            )
    if config.score_head:
        shape = (len(config.score_labels), config.width)
        leaves[_SCORE] = read(_PREFIX + "score.weight", shape).T
    return lora, unflatten(leaves)


def _adapted_modules(
    path: Path,
    stored: Collection[str],
    config: DecoderConfig,
    settings: PeftSettings,
) -> list["_Module"]:
    """The modules that a file's tensors adapt; they must be those its settings name."""
    every = tuple(target for module in _modules(config) for target in module.targets)
    modules = [
        m
        for m in _modules(config, every)
        if set(stored) & set(m.names(config, _A)) and any(m.adapted(config, settings))
    ]
    if not modules:
        raise InputError(
            f"{path} adapts no linear layer of a {config.family} model that its settings name; its "
            f"tensors are called {min(stored, default='nothing')}, ours "
            f"{_modules(config)[0].names(config, _A)[0]}"
        )
    expected = {
        name
        for m in modules
        for end in (_A, _B)
        for name, adapted in zip(m.names(config, end), m.adapted(config, settings), strict=True)
        if adapted
    }
    score = {_PREFIX + "score.weight"} if config.score_head else set()
    names.require_names(
        set(stored), expected | score, str(path), "the adapter is for another model"
    )
    return modules


def adapter_tensors(config: DecoderConfig, lora: LoraConfig, adapter: Tree) -> list[shards.Tensor]:
    """The tensors of PEFT's file of an adapter. Raises as `write_adapter`."""
    return list(_tensors(config, lora, _checked(config, lora, adapter)))


def pair_names(name: str) -> tuple[str, str]:
    """PEFT's names of the `A` and the `B` of a Hugging Face tensor."""
    module = _PREFIX + name.removesuffix(".weight")
    return module + _A, module + _B


class _Module(NamedTuple):
    """A linear layer of the Hugging Face model, and the targets whose kernels lie in it."""

    name: str  # {layer} left in
    targets: tuple[str, ...]  # those that are adapted
    spans: tuple[slice, ...]  # where each lies along the output
    shape: tuple[int, int]  # [out, in]

    @property
    def leaf_name(self) -> str:
        """The last part, by which `target_modules` and patterns name it."""
        return self.name.rpartition(".")[2]

    def names(self, config: DecoderConfig, end: str) -> list[str]:
        """The names of its `A` or `B`, one per layer."""
        return [f"{_PREFIX}{self.name}{end}".format(layer=i) for i in range(config.layers)]

    def adapted(self, config: DecoderConfig, settings: PeftSettings) -> list[bool]:
        """Whether its own adapter stands in each layer."""
        every = (self.name.format(layer=i) for i in range(config.layers))
        return [settings.targets.adapts(name) for name in every]


def _modules(config: DecoderConfig, targets: tuple[str, ...] | None = None) -> list[_Module]:
    """The linear layers of a block that hold any of `targets`; None is all of them."""
    modules = []
    for fused in names.fused(config):
        places = [
            (row.path.split("/")[-2], span)
            for row, span in names.parts(fused, config)
            if row.stacked and row.transposed
        ]
        chosen = [(name, span) for name, span in places if targets is None or name in targets]
        if chosen:
            held, spans = zip(*chosen, strict=True)
            out, width = names.fused_shape(fused, config)
            modules.append(_Module(fused.rows[0].module, held, spans, (out, width)))
    return modules


def _linear_rows(config: DecoderConfig) -> dict[str, names.Weight]:
    """The linear layers of a block by the name `LoraConfig.targets` gives them."""
    rows = (row for row in names.table(config) if row.stacked and row.transposed)
    return {row.path.split("/")[-2]: row for row in rows}


def _checked(config: DecoderConfig, lora: LoraConfig, adapter: Tree) -> dict[str, Array]:
    """The adapter's leaves by path, which must be those of `lora`."""
    rows = _linear_rows(config)
    unknown = sorted(set(lora.targets) - set(rows))
    if unknown or not lora.targets:
        raise InputError(f"LoRA targets {unknown} match nothing; there are {', '.join(rows)}")
    given, shapes = flatten(adapter), names.tensor_shapes(config, lora)
    expected = {path for path in shapes if path.endswith(("/lora_a", "/lora_b"))}
    if config.score_head:
        expected.add(_SCORE)
    where = f"its targets are {', '.join(lora.targets)}"
    names.require_names(set(given), expected, "the adapter tree", where)
    for path, leaf in given.items():
        names.require_shape(leaf.shape, shapes[path], path)
    return given


def _settings(lora: LoraConfig, modules: list[_Module]) -> PeftSettings:
    """Rank and alpha of a fused module grow so that the factor stays that of its parts."""
    fused = {m.leaf_name: len(m.targets) for m in modules if len(m.targets) > 1}
    return PeftSettings(
        lora.rank,
        lora.alpha,
        lora.rank_stabilised,
        {name: n * lora.rank for name, n in fused.items()},
        {name: (n**0.5 if lora.rank_stabilised else n) * lora.alpha for name, n in fused.items()},
    )


def _tensors(
    config: DecoderConfig, lora: LoraConfig, leaves: Mapping[str, Array]
) -> Iterator[shards.Tensor]:
    rows = _linear_rows(config)
    for module in _modules(config, lora.targets):
        layers = [rows[target].path.removesuffix("kernel") for target in module.targets]
        low, high = ([np.asarray(leaves[at + kind]) for at in layers] for kind in _KINDS)
        both = zip(module.names(config, _A), module.names(config, _B), strict=True)
        for layer, (name_a, name_b) in enumerate(both):
            a, b = stacked(
                [part[layer].T for part in low],
                [part[layer].T for part in high],
                module.spans,
                module.shape[0],
            )
            yield _kept(name_a, a)
            yield _kept(name_b, b)
    if _SCORE in leaves:
        yield _kept(_PREFIX + "score.weight", np.asarray(leaves[_SCORE]).T)


def _kept(name: str, array: np.ndarray) -> shards.Tensor:
    return shards.Tensor(name, array.shape, array.dtype, partial(np.copyto, src=array))


def _pairs(
    module: _Module,
    config: DecoderConfig,
    settings: PeftSettings,
    read: Callable[[str, tuple[int, ...]], np.ndarray],
) -> list[LoraPair]:
    """The module's pair of each layer, without effect where it has none; all of one rank."""
    out, width = module.shape
    pairs: list[LoraPair | None] = []
    both = zip(module.names(config, _A), module.names(config, _B), strict=True)
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

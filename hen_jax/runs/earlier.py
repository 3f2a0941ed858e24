"""What a run trains and what it does not: made anew, or as an earlier run left it."""

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax

from hen_jax.adapters.lora import check_targets
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Tree
from hen_jax.models.config import SCORE_LABELS, DecoderConfig, Execution, LoraConfig
from hen_jax.models.decoder import Decoder, abstract, split
from hen_jax.runs.model import SCORE, WEIGHT_FILES, BaseModel, fingerprint
from hen_jax.runs.record import read_back, read_run_record
from hen_jax.runs.settings import settings
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.placement import initial_adapter


class Partition(NamedTuple):
    """The leaves of a decoder, each in one of the two."""

    trainable: Tree
    frozen: Tree


class PreviousRun(NamedTuple):
    """What the record of a run says of it."""

    record: dict[str, Any]
    lora: LoraConfig | None  # None: all parameters trained, or `adapters`
    adapters: Mapping[str, LoraConfig]  # that it trained side by side, by name; else empty
    base: Path  # the folder of its base model


def trainable_and_frozen(
    model: BaseModel, lora: LoraConfig | None, execution: Execution, seed: int
) -> Partition:
    """A new adapter and its base; without `lora` all parameters train, a score head always."""
    if lora is None:
        return Partition(model.base, {})

    def build(key: jax.Array) -> Decoder:
        return Decoder(key, model.config, lora, execution)

    adapter = initial_adapter(build, model.shardings, seed)
    check_targets(lora, adapter)
    return beside(adapter, model.base)


def new_adapters(
    model: BaseModel, adapters: Mapping[str, LoraConfig], execution: Execution, seed: int
) -> Partition:
    """A new adapter for each name, and the base; the n-th starts as one alone with `seed + n`."""
    made = {
        name: trainable_and_frozen(model, lora, execution, seed + index).trainable
        for index, (name, lora) in enumerate(adapters.items())
    }
    return Partition(made, model.base)


def beside(adapter: Tree, base: Tree) -> Partition:
    """What trains with an adapter: a score head of the base moves over to it."""
    head = {SCORE: base[SCORE]} if SCORE in base else {}
    return Partition(adapter | head, {key: base[key] for key in base.keys() - head.keys()})


def continued_from(run: Path, model: BaseModel, lora: LoraConfig | None) -> Partition:
    """`trainable_and_frozen`, but with what the run in folder `run` learnt.

    A score head that it lacks, or whose outputs mean something else, is that of `model`.

    Raises:
      InputError: as `saved_params`, or a reward model asked to go on as a language model.
    """
    if trained_scores(run) and not model.config.score_head:
        raise InputError(
            f"config.start: the run in {run} trained a reward model, which has no language head; "
            "start from the run that it began with"
        )
    left_out = set()
    if model.config.score_head:
        other = as_trained(run, model.config).score_labels != model.config.score_labels
        left_out = {"head", SCORE} if other else {"head"}
    saved = saved_params(run, model, lora)
    kept = {key: leaves for key, leaves in saved.items() if key not in left_out}
    fresh = beside({}, model.base)
    return Partition(fresh.trainable | kept, {} if lora is None else fresh.frozen)


def trained_scores(run: Path) -> bool:
    """Whether the run in folder `run` trained a model with a score head."""
    return bool(previous_run(run).record["base"]["model"].get("score_head", False))


def as_trained(run: Path, config: DecoderConfig) -> DecoderConfig:
    """`config` with the head that the run in folder `run` trained."""
    before = previous_run(run).record["base"]["model"]
    labels = tuple(before.get("score_labels", SCORE_LABELS))
    return dataclasses.replace(config, score_head=trained_scores(run), score_labels=labels)


_HEAD = ("score_head", "score_labels")
"""The fields of a model's config that a run may change."""


def previous_run(run: Path) -> PreviousRun:
    """The run in folder `run`. Raises `InputError` where there is none, or a damaged record."""
    if not (run / RECORD).exists():
        raise InputError(f"{run} holds no run (no {RECORD}); give the --workdir of `hen run`")
    record, place = read_run_record(run), run / RECORD
    adapter = record["config"].get("adapter")
    adapters = {
        name: settings(LoraConfig, one, f"{place}: adapters.{name}")
        for name, one in (record.get("adapters") or {}).items()
    }
    alone = adapter is not None and not adapters
    lora = settings(LoraConfig, adapter, f"{place}: config.adapter") if alone else None
    return PreviousRun(record, lora, adapters, Path(record["base"]["folder"]))


def saved_params(run: Path, model: BaseModel, lora: LoraConfig | None) -> Tree:
    """What the newest checkpoint of `run` holds, on the shardings of `model`.

    Raises:
      InputError: no checkpoint there, the newest is damaged, or `model` is not the base as it was
        when the run trained on it.
    """
    _require_same_base(run, model)
    left = as_trained(run, model.config)
    parts, dtype = split(abstract(left, lora)), model.base["embed"]["embedding"].dtype

    def saved(path: str, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        kept = dtype if lora is None and not path.startswith(f"{SCORE}/") else leaf.dtype
        return jax.ShapeDtypeStruct(leaf.shape, kept, sharding=model.shardings[path])

    shapes = parts.base if lora is None else beside(parts.adapter, parts.base).trainable
    like = map_with_path(saved, shapes)
    with closing(Checkpoints(run / "checkpoints", keep=1, asynchronous=False)) as checkpoints:
        return checkpoints.params(like)


def saved_adapters(
    run: Path, model: BaseModel, adapters: Mapping[str, LoraConfig]
) -> dict[str, Tree]:
    """The adapters of that name and shape in the newest checkpoint of `run`.

    Raises:
      InputError: as `saved_params`.
    """
    _require_same_base(run, model)

    def saved(path: str, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=model.shardings[path])

    like = {
        name: map_with_path(saved, split(abstract(model.config, lora)).adapter)
        for name, lora in adapters.items()
    }
    with closing(Checkpoints(run / "checkpoints", keep=1, asynchronous=False)) as checkpoints:
        return checkpoints.params(like)


def _require_same_base(run: Path, model: BaseModel) -> None:
    before = previous_run(run).record["base"]
    config = read_back(dataclasses.asdict(model.config))
    other = sorted(
        name
        for name, value in before["model"].items()
        if name not in _HEAD and config.get(name, value) != value  # weights are compared below
    )
    if other:
        field = other[0]
        what = f"its {field} was {before['model'][field]!r}, is {config[field]!r}"
    elif fingerprint(model.folder, WEIGHT_FILES) != before["weights_sha256"]:
        what = "its weights are others"
    else:
        return
    raise InputError(
        f"the base model in {model.folder} is not the one that {run} trained on ({what}); put that "
        "one back there"
    )

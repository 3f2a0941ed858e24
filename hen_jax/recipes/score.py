"""`hen score`: what a reward model gives each reply of a data file, packed and in batches."""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import MeshConfig, make_mesh, replicated, rows_over
from hen_jax.core.outputs import output_files, require_ours
from hen_jax.core.trees import map_with_path
from hen_jax.core.types import Array, Batch, RowLimits, Tree
from hen_jax.data.comparisons import unshifted
from hen_jax.data.packing import lay_out_row, pack_all, stack_rows
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.io import hf, peft
from hen_jax.models.config import DecoderConfig, Execution
from hen_jax.models.decoder import merge
from hen_jax.models.heads import document_scores
from hen_jax.runs.earlier import beside
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import BaseModel, open_model, with_score_head
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation
from hen_jax.training.placement import to_devices

ROW = 512
"""Positions of a row, or as many as the longest document has."""


@dataclasses.dataclass(frozen=True)
class Scoring:
    """One `hen score`; fields carry the names of its flags."""

    model: Path
    input: Path
    schema: str
    out: Path
    adapter: Path | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    batch_size: int = 8  # rows at a time, on each device
    dtype: Literal["float32", "bfloat16"] = "float32"


class RewardModel(NamedTuple):
    """A model with a score head, on its devices."""

    mesh: Mesh
    opened: BaseModel
    params: Tree  # an adapter with its head, or all
    frozen: Tree


class Scored(NamedTuple):
    """What was written."""

    documents: int
    too_long: int  # have no score: longer than the model's positions
    tokens: int
    seconds: float


def score(scoring: Scoring) -> Scored:
    """Writes a line for each record of the input, in its order, all or nothing.

    Of a schema of pairs a line is `{"id", "kind", "chosen", "rejected"}`, else `{"id", "score"}`.
    A document longer than the model has positions scores null, and is counted.

    Raises:
      InputError: no reward model, a bad record (file:line:field), or an output of somebody else.
    """
    if scoring.batch_size < 1:
        raise InputError(f"--batch-size is {scoring.batch_size}; give 1 or more")
    require_ours(scoring.out)
    reward_config(scoring.model, scoring.adapter)  # before anything long
    lines, conversations = _read(scoring)
    reward = open_reward(scoring.model, scoring.adapter, scoring.dtype)
    rendered = render_all(conversations, known_tokenizer(scoring.model))
    documents = [one.tokens for one in rendered]
    most, began = reward.opened.config.max_length, time.perf_counter()
    fitting = [at for at, tokens in enumerate(documents) if len(tokens) <= most]
    found = np.full(len(documents), np.nan)
    found[fitting] = score_documents(reward, [documents[at] for at in fitting], scoring.batch_size)
    values: Iterator[float] = iter(found.tolist())
    with output_files(scoring.out) as (staged,), staged.open("w", encoding="utf-8") as file:
        for line in lines:
            row = {key: _number(next(values)) if key in _SCORES else line[key] for key in line}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    seconds, tokens = time.perf_counter() - began, sum(len(documents[at]) for at in fitting)
    done = Scored(len(documents), len(documents) - len(fitting), tokens, seconds)
    print(
        f"{scoring.out}: {done.documents} documents of {done.tokens} tokens in {seconds:.1f} s, "
        f"compilation included; {done.too_long} longer than the model's {most} positions"
    )
    return done


def open_reward(
    folder: Path, adapter: Path | None = None, dtype: Literal["float32", "bfloat16"] = "float32"
) -> RewardModel:
    """A folder with a reward model, or a trunk and an adapter that has its score head.

    Raises:
      InputError: neither.
    """
    config, mesh = reward_config(folder, adapter), make_mesh(MeshConfig())
    lora, learnt = (None, {}) if adapter is None else peft.read_adapter(adapter, config, "float32")
    run = Execution(compute_dtype=dtype, remat="none")
    opened = open_model(folder, mesh, lora=lora, execution=run, dtype=dtype, config=config)
    if lora is None:
        return RewardModel(mesh, opened, opened.base, {})
    where = opened.shardings
    placed = map_with_path(lambda path, leaf: jax.device_put(leaf, where[path]), learnt)
    return RewardModel(mesh, opened, placed, beside({}, opened.base).frozen)


def reward_config(folder: Path, adapter: Path | None) -> DecoderConfig:
    """The model in a folder, with a score head: its own, or that of an adapter.

    Raises:
      InputError: neither has one.
    """
    stored = hf.read_config(folder)
    if adapter is None and not stored.score_head:
        raise InputError(
            f"{folder} is no reward model (it has no score head); give one, or --adapter with one"
        )
    return with_score_head(stored)


def score_documents(
    reward: RewardModel, documents: Sequence[np.ndarray], batch_size: int = 8
) -> Float[np.ndarray, "N"]:
    """The score of each document of tokens, in order: packed, of one shape, compiled once."""
    if not documents:
        return np.zeros(0)
    lengths = np.asarray([len(tokens) for tokens in documents])
    longest = int(lengths.max())
    row = max(ROW, -(-longest // 64) * 64)
    rows = pack_all(lengths, row)
    held = int(np.diff(rows.ends, prepend=0).max())
    run = compiled_scores(reward, held, RowLimits(longest, 0, held))
    size, put = batch_size * rows_over(reward.mesh), to_devices(reward.mesh)
    found = np.zeros(len(documents))
    for start in range(0, len(rows), size):
        places = [rows[at] if at < len(rows) else [] for at in range(start, start + size)]
        laid = [lay_out_row([unshifted(documents[at]) for at in own], row) for own in places]
        scores = np.asarray(run(reward.params, reward.frozen, put(stack_rows(laid))))
        for own, values in zip(places, scores, strict=True):
            found[own] = values[: len(own)]
    return found


def compiled_scores(reward: RewardModel, held: int, reach: RowLimits) -> Any:
    """`scores(params, frozen, batch)`: `[B, held]`, those of each row's documents; jitted."""

    def scores(params: Tree, frozen: Tree, batch: Batch) -> Array:
        model = merge(reward.opened.graphdef, params, frozen)
        assert model.score is not None
        hidden = model.hidden(batch.tokens, batch.positions, batch.segments, reach)
        return document_scores(model.score(hidden, batch.segments), batch.segments, held)

    return jax.jit(scores, out_shardings=replicated(reward.mesh))


_SCORES = ("score", "chosen", "rejected")


def _read(scoring: Scoring) -> tuple[list[dict[str, Any]], list[Conversation]]:
    """The lines to be written, with what is to be scored under the keys of `_SCORES`."""
    schema = schema_named(scoring.schema)
    records = check_records(scoring.input, scoring.schema, scoring.columns).whole(scoring.input)
    lines = list(_lines(schema.pairs, schema.document, records))
    return lines, [line[key] for line in lines for key in _SCORES if key in line]


def _lines(pairs: Any, document: Any, records: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for record in records:
        if pairs is None:
            one = document(record)
            yield {"id": one.id, "score": one.conversation}
            continue
        for pair in pairs(record):
            chosen, rejected = pair.conversations()
            yield {"id": pair.id, "kind": pair.kind, "chosen": chosen, "rejected": rejected}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)

"""Muffin: a model trained on which of its own candidates are helpful, beside the given replies.

Left out: the published schedule (inverse square root of the step) and the generators that it was
applied to; any schedule of `config.optimizer` and any decoder.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH
from hen_jax.core.ranges import Positive
from hen_jax.data.candidates import Candidates, candidate_rows
from hen_jax.data.comparison_batches import ComparisonConfig, Comparisons, trained_ids
from hen_jax.data.comparisons import Compared
from hen_jax.data.preference_batches import (
    PreferenceBatch,
    PreferenceBounds,
    Weighed,
    WeighedBounds,
    eval_preferences,
    preference_bounds,
    train_preferences,
)
from hen_jax.data.schemas import read_records
from hen_jax.data.splits import split_records
from hen_jax.models.config import DecoderConfig
from hen_jax.recipes.changes import NARROW
from hen_jax.runs.abstract import abstract_batch
from hen_jax.runs.packed import check_rows, check_shared_prompts, packed_flops, packed_rows
from hen_jax.runs.sources import locate_source
from hen_jax.runs.stage import Feed, Load, RunSettings, Stage, Work, guarded
from hen_jax.steps.muffin import MuffinConfig, muffin_loss
from hen_jax.steps.update import update_step
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.optimizers import make_schedule
from hen_jax.training.processes import Share

SCHEMA = "candidates"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MuffinSettings(RunSettings):
    """Everything that decides what a run computes; sources are of the schema `candidates`."""

    epochs: Positive  # passes over the contexts; a part of one is allowed
    data: ComparisonConfig = ComparisonConfig()
    muffin: MuffinConfig = MuffinConfig()


def feed(settings: MuffinSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """One context with its replies a row, the given one first.

    Raises:
      InputError: a source of another schema, or a part without a context that fits.
    """
    data, shards = settings.data, {"process_index": share.index, "process_count": share.count}
    dealt = split_records(_records(settings), lambda one: one.group)
    parts = [
        _rows(name, part, tokenizer, data)
        for name, part in (("train", dealt.train), ("valid", dealt.valid))
    ]
    train, valid = parts
    everything = [*train, *valid]
    bounds = preference_bounds(everything, shared=True, mismatches=False)
    found = Comparisons((train,), (1.0,))
    sizes = (data, bounds, {row: number for number, row in enumerate(everything)})
    return Feed(
        steps=max(1, round(settings.epochs * len(train) / data.batch_size)),
        bounds=bounds,
        batches=train_preferences(found, *sizes, **shards),
        held_out=partial(eval_preferences, valid, *sizes, **shards),
        records=partial(trained_ids, found, data),
    )


def work(
    settings: MuffinSettings,
    config: DecoderConfig,
    graphdef: nnx.GraphDef,
    bounds: PreferenceBounds,
    steps: int,
) -> Work:
    """The margin and the cross-entropy, one update a batch."""
    schedule = make_schedule(settings.optimizer, steps)
    optimizer = guarded(settings, schedule)
    loss = muffin_loss(graphdef, bounds.rows, settings.muffin, settings.logit_chunk)
    return Work(update_step(loss, optimizer, settings.microbatches), optimizer, schedule, loss)


def load(settings: MuffinSettings, config: DecoderConfig, mesh: Mesh) -> Load:
    """Rows without padding, of three replies each, every position of which is taken to train."""
    data, where = settings.data, NamedSharding(mesh, PartitionSpec(BATCH))
    B, K, T = data.batch_size, 3, data.row_length

    def leaf(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    rows = Weighed(abstract_batch((B,), T, mesh, (BATCH,)), leaf(B, T))
    batch = PreferenceBatch(rows, leaf(B, K, K), leaf(B, K, 2), leaf(B, dtype=jnp.int32))
    return Load(batch, PreferenceBounds(WeighedBounds(T, K, T)))


def _records(settings: MuffinSettings) -> list[Candidates]:
    found = []
    for source in settings.sources:
        if source.schema != SCHEMA:
            raise InputError(
                f"config.sources: schema {source.schema!r}; recipe 'muffin' reads {SCHEMA!r}, "
                "which `hen build muffin` writes"
            )
        found += read_records(locate_source(source.path), SCHEMA, source.columns.given())
    return found


def _rows(
    name: str, part: list[Candidates], tokenizer: ChatTokenizer, data: ComparisonConfig
) -> list[Compared]:
    rows, dropped = candidate_rows(part, tokenizer, data.row_length)
    pairs = int(sum(row.wins.sum() for row in rows))
    print(
        f"{name}: {len(rows)} contexts, {pairs} pairs of a helpful and an unhelpful candidate; "
        f"{len(dropped)} left out as longer than data.row_length {data.row_length}"
    )
    if not rows:
        raise InputError(
            f"the {name} part of config.sources holds no context that fits; give files with more "
            "groups, or raise config.data.row_length"
        )
    return rows


STAGE = Stage(
    settings=MuffinSettings,
    feed=feed,
    work=work,
    load=load,
    flops=packed_flops,
    summary=lambda one: f"Muffin (margin {one.muffin.margin:g}, {one.epochs:g} epochs),",
    check=check_rows,
    check_model=check_shared_prompts,
    rows=packed_rows,
    changes=(NARROW,),
)

"""What a Muffin run reads: contexts with candidates, helpful and unhelpful."""

import dataclasses
from functools import partial

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Positive
from hen_jax.data.candidates import Candidates, candidate_rows
from hen_jax.data.comparison_batches import ComparisonConfig, Comparisons, trained_ids
from hen_jax.data.comparisons import Compared
from hen_jax.data.preference_batches import (
    eval_preferences,
    preference_bounds,
    train_preferences,
)
from hen_jax.data.schemas import read_records
from hen_jax.data.splits import split_records
from hen_jax.runs.sources import locate_source
from hen_jax.runs.stage import Feed, RunSettings
from hen_jax.steps.muffin import MuffinConfig
from hen_jax.text.tokenizer import ChatTokenizer
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

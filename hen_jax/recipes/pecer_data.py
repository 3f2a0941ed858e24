"""What a PECER run reads: conversations with what is known of who speaks."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data.featured import (
    Featured,
    featured,
    featured_batch,
    read_features,
)
from hen_jax.data.pipeline import PipelineConfig
from hen_jax.data.row_streams import RowSets, eval_rows, rows_of_batch, train_rows
from hen_jax.models.soft_prefix import PrefixConfig
from hen_jax.runs.packed import PackedSettings
from hen_jax.runs.sources import documents
from hen_jax.runs.stage import Feed
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.processes import Share

_MULTIPLE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class PecerSettings(PackedSettings):
    """Everything that decides what a run computes; a row holds one conversation."""

    features: str  # a file of traits and reactions by record: `hen build traits`
    traits: int = 5  # numbers of a record's traits: 5 of big5, 4 of mbti
    reactions: int = 8  # numbers of a record's reactions
    prefix: PrefixConfig = PrefixConfig()


class Bounds(NamedTuple):
    """Sizes that the step is compiled for."""

    row: int


def feed(settings: PecerSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """One conversation a row, behind the places of its prefix.

    Raises:
      InputError: a record without features, features of another size, or a part without a record.
    """
    data, shards = settings.data, {"process_index": share.index, "process_count": share.count}
    known = read_features(Path(settings.features))
    sizes = (settings.traits, settings.reactions)
    first = next(iter(known.values()))
    if (len(first.traits), len(first.reactions)) != sizes:
        raise InputError(
            f"{settings.features}: {len(first.traits)} traits, {len(first.reactions)} reactions; "
            f"config.traits is {sizes[0]}, config.reactions {sizes[1]}"
        )
    dealt, longest = documents(settings.sources), data.row_length - settings.prefix.length
    parts: list[list[Featured]] = []
    for name, part in (("train", dealt.train), ("valid", dealt.valid)):
        rows, dropped = featured(part, known, tokenizer, longest)
        print(f"{name}: {len(rows)} conversations; {len(dropped)} left out as longer than a row")
        if not rows:
            raise InputError(f"the {name} part of config.sources holds no conversation that fits")
        parts.append(rows)
    fullest = max(row.example.length for part in parts for row in part)
    row = -(-(fullest + settings.prefix.length) // _MULTIPLE) * _MULTIPLE
    lay = partial(featured_batch, row_length=row, prefix=settings.prefix.length, sizes=sizes)
    train, valid = parts
    sets = RowSets((train,))
    return Feed(
        steps=max(1, round(settings.epochs * len(train) / data.batch_size)),
        bounds=Bounds(row),
        batches=train_rows(sets, lay, data, **shards),
        held_out=lambda: eval_rows(valid, lay, data, **shards),
        records=lambda number: _ids(sets, data, number),
    )


def _ids(sets: RowSets, data: PipelineConfig, number: int) -> list[str]:
    return [row.example.id for row in rows_of_batch(sets, data, number)]

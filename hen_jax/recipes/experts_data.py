"""What the experts of a run are, and the batches that hold rows of each."""

from typing import NamedTuple

from hen_jax.data.joined import JoinedBatches, Stream, join_all
from hen_jax.data.pipeline import (
    Mixture,
    RowBounds,
    batches_per_epoch,
    eval_batches,
    row_bounds,
    train_batches,
    train_records,
    widest,
)
from hen_jax.recipes.experts_settings import Expert, ExpertsSettings, learning
from hen_jax.runs.sources import Prepared, prepared
from hen_jax.runs.stage import Feed
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.training.processes import Share


class ExpertBounds(NamedTuple):
    """What no row exceeds, and the updates of each expert."""

    rows: RowBounds
    steps: tuple[int, ...]


def feed(settings: ExpertsSettings, tokenizer: ChatTokenizer, share: Share) -> Feed:
    """The rows of every expert side by side, each packed, shuffled and repeated as if alone."""
    data, shards = settings.data, {"process_index": share.index, "process_count": share.count}
    found: dict[int, Prepared] = {}
    for number, expert in learning(settings).items():
        print(f"expert {expert.name}:")
        found[number] = prepared(expert.sources, data, tokenizer)
    steps = tuple(
        _steps(settings, expert, found[number].train) if number in found else 0
        for number, expert in enumerate(settings.experts)
    )
    streams = [
        Stream(number, steps[number], train_batches(one.train, data, **shards))
        for number, one in found.items()
    ]
    return Feed(
        steps=max(steps),
        bounds=ExpertBounds(
            widest(row_bounds(part, data) for one in found.values() for part in one), steps
        ),
        batches=JoinedBatches(streams),
        held_out=lambda: join_all(
            {number: eval_batches(one.valid, data, **shards) for number, one in found.items()}
        ),
        records=lambda number: [
            record
            for index, one in found.items()
            if number < steps[index]
            for record in train_records(one.train, data, number)
        ],
    )


def _steps(settings: ExpertsSettings, expert: Expert, train: Mixture) -> int:
    epochs = settings.epochs if expert.epochs is None else expert.epochs
    return max(1, round(epochs * batches_per_epoch(train, settings.data)))

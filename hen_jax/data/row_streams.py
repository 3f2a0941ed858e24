"""Rows of any kind to a stream of batches that can be stopped and taken up at any batch.

As in `data.pipeline`: rows are shuffled anew each epoch and repeated without end, every run of
`batch_size` is a global batch of which process `p` of `P` takes the `p`-th slice, and the state is
one number.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hen_jax.data.pipeline import Batches, PipelineConfig, local_size

if TYPE_CHECKING:
    import grain

_Row = TypeVar("_Row")
Lay = Callable[[Sequence[Any]], Any]
"""From rows, of which None is one of padding, to a batch of them."""


class RowSets(NamedTuple):
    """Sets of rows, and how many rows each gives beside the others."""

    sets: Sequence[Sequence[Any]]
    weights: Sequence[float] = (1.0,)


def train_rows(
    rows: RowSets,
    lay: Lay,
    ahead: PipelineConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """An endless iterator over this process's part of each batch; it knows its place.

    Of `ahead` the batch size, the seed of the shuffle and the prefetch are used.

    Raises:
      InputError: a batch that does not divide over the processes.
    """
    local = local_size(ahead, process_index, process_count)
    batched = _endless(rows, ahead.seed).batch(local, drop_remainder=True, batch_fn=list)
    return Batches(batched[process_index::process_count].map(lay), ahead)


def rows_of_batch(rows: RowSets, ahead: PipelineConfig, number: int) -> list[Any]:
    """The rows of the whole batch `number`, from 0, of `train_rows`."""
    endless = _endless(rows, ahead.seed)
    places = range(number * ahead.batch_size, (number + 1) * ahead.batch_size)
    return [row for row in (endless[place] for place in places) if row is not None]


def eval_rows(
    rows: Sequence[_Row],
    lay: Lay,
    ahead: PipelineConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Any]:
    """Every row once, in order, then rows of padding up to a whole batch: a process's part."""
    local = local_size(ahead, process_index, process_count)
    whole = -(-len(rows) // ahead.batch_size) * ahead.batch_size
    for start in range(process_index * local, whole, ahead.batch_size):
        own: list[_Row | None] = [*rows[start : start + local]]
        yield lay(own + [None] * (local - len(own)))


def _endless(rows: RowSets, seed: int) -> "grain.MapDataset[Any]":
    # Imported here: grain itself imports jax, and this module must load without.
    import grain

    streams = [
        grain.MapDataset.source(one).seed(seed + number).shuffle().repeat()
        for number, one in enumerate(rows.sets)
    ]
    return streams[0] if len(streams) == 1 else grain.MapDataset.mix(streams, rows.weights)

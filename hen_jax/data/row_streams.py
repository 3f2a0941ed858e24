"""Rows of any kind to a stream of batches that can be stopped and taken up at any batch.

As in `data.pipeline`: rows are shuffled anew each epoch and repeated without end, every run of
`batch_size` is a global batch of which process `p` of `P` takes the `p`-th slice, and the state is
one number.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from hen_jax.data.pipeline import Batches, PipelineConfig, local_size

if TYPE_CHECKING:
    import grain

_Row = TypeVar("_Row")
Lay = Callable[[Sequence[Any]], Any]
"""From rows, of which None is one of padding, to a batch of them."""


class Streamed(Protocol):
    """The fields of a config that decide a stream."""

    @property
    def batch_size(self) -> int:
        """Rows of one batch over all processes."""
        ...

    @property
    def seed(self) -> int:
        """Of the shuffle."""
        ...

    @property
    def prefetch(self) -> int:
        """Batches prepared ahead."""
        ...


class RowSets(NamedTuple):
    """Sets of rows, and how many rows each gives beside the others."""

    sets: Sequence[Sequence[Any]]
    weights: Sequence[float] = (1.0,)


def train_rows(
    rows: RowSets,
    lay: Lay,
    config: Streamed,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """An endless iterator over this process's part of each batch; it knows its place.

    Raises:
      InputError: a batch that does not divide over the processes.
    """
    ahead = pipeline_of(config)
    local = local_size(ahead, process_index, process_count)
    batched = _endless(rows, config.seed).batch(local, drop_remainder=True, batch_fn=list)
    return Batches(batched[process_index::process_count].map(lay), ahead)


def rows_of_batch(rows: RowSets, config: Streamed, number: int) -> list[Any]:
    """The rows of the whole batch `number`, from 0, of `train_rows`."""
    endless = _endless(rows, config.seed)
    places = range(number * config.batch_size, (number + 1) * config.batch_size)
    return [row for row in (endless[place] for place in places) if row is not None]


def eval_rows(
    rows: Sequence[_Row],
    lay: Lay,
    config: Streamed,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Any]:
    """Every row once, in order, then rows of padding up to a whole batch: a process's part."""
    local = local_size(pipeline_of(config), process_index, process_count)
    whole = -(-len(rows) // config.batch_size) * config.batch_size
    for start in range(process_index * local, whole, config.batch_size):
        own: list[_Row | None] = [*rows[start : start + local]]
        yield lay(own + [None] * (local - len(own)))


def pipeline_of(config: Streamed) -> PipelineConfig:
    """Those fields as the settings of a pipeline."""
    return PipelineConfig(batch_size=config.batch_size, seed=config.seed, prefetch=config.prefetch)


def _endless(rows: RowSets, seed: int) -> "grain.MapDataset[Any]":
    # Imported here: grain itself imports jax, and this module must load without.
    import grain

    streams = [
        grain.MapDataset.source(one).seed(seed + number).shuffle().repeat()
        for number, one in enumerate(rows.sets)
    ]
    return streams[0] if len(streams) == 1 else grain.MapDataset.mix(streams, rows.weights)

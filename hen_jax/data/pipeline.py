"""Examples to a stream of batches that can be stopped and taken up at any batch.

The order of things: examples are packed into rows once, from their lengths and, where rows share
them, prefixes; the rows are shuffled anew each epoch and repeated without end; every run of
`batch_size` rows is one global batch; process `p` of `P` takes the `p`-th of its `P` equal slices,
and only then are its examples read. Epochs run on into each other, so no row is left over, and the
state is one number, the next global batch: it is the same for every number of processes and of
workers, so a run may be taken up on another one, batch for batch.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.core.types import Batch, RowLimits
from hen_jax.data.examples import Example, Overlong
from hen_jax.data.packing import Packing, RowPlan, pack_row, stack_rows
from hen_jax.data.stores import Store, in_memory, rows_of

if TYPE_CHECKING:
    import grain


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """How documents become batches.

    Raises:
      InputError: a number is out of its range.
    """

    row_length: Count = 1024  # T
    batch_size: Count = 8  # B, rows of one batch over all processes
    packing: Packing = "fewest_rows"  # "shared_prefix": a common prefix once a row
    overlong: Overlong = "truncate"  # what becomes of a document longer than a row
    seed: Natural = 0  # of the shuffle
    prefetch: Natural = 2  # batches prepared ahead, by a thread or by each worker; 0 for none
    workers: Natural = 0  # processes that prepare batches; 0: a thread of this one, mostly enough
    cache: bool = True  # rendered examples are kept on disk, and read when needed

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Sets of examples, and how many rows each gives beside the others."""

    stores: tuple[Store, ...]
    weights: tuple[float, ...]

    def __post_init__(self):
        if len(self.weights) != len(self.stores) or not all(one > 0 for one in self.weights):
            raise InputError(
                f"{len(self.stores)} sets and the weights {list(self.weights)}; give each set a "
                "positive weight"
            )


_Examples = Mixture | Store | Sequence[Example]
"""What batches are made of: sets with weights, a set that may be on disk, or a list."""


def as_mixture(examples: _Examples) -> Mixture:
    """Any kind of `Examples` as a mixture."""
    if isinstance(examples, Mixture):
        return examples
    store = examples if isinstance(examples, Store) else in_memory(examples)
    return Mixture((store,), (1.0,))


class Batches:
    """An endless iterator over batches that knows its place.

    Holds a thread or processes that read ahead, so it is a class. They start with the first batch.
    """

    def __init__(self, batches: "grain.MapDataset[Any]", config: PipelineConfig):
        self._batches, self._config, self._next = batches, config, 0
        self._ahead: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._ahead is None:
            self._ahead = iter(_read_ahead(self._batches[self._next :], self._config))
        batch = next(self._ahead)
        self._next += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The place of the next batch, as JSON."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a place that `get_state` gave."""
        self._next, self._ahead = state["next_index"], None


def train_batches(
    examples: _Examples,
    config: PipelineConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """An endless iterator over this process's part `[B / process_count, T]` of each batch.

    `get_state()` and `set_state(state)` of the iterator save and restore its place. Of a mixture
    each set is packed by itself, shuffled and repeated at its own pace, so a small set may have
    gone round three times while a large one has not been seen whole. The mixing is exact and not
    by chance: weights 3 and 1 give three rows of the first set to each of the second.

    Raises:
      InputError: no example, one longer than a row, or a batch that does not divide over the
        processes.
    """
    local = local_size(config, process_index, process_count)
    mixture = as_mixture(examples)
    rows = _endless_rows(mixture, config).batch(local, drop_remainder=True, batch_fn=list)
    mine = rows[process_index::process_count]
    return Batches(mine.map(functools.partial(_read, mixture.stores, config.row_length)), config)


def train_records(examples: _Examples, config: PipelineConfig, number: int) -> list[str]:
    """The ids of the records in the whole batch `number`, from 0, of `train_batches`."""
    mixture = as_mixture(examples)
    rows = _endless_rows(mixture, config)
    places = range(number * config.batch_size, (number + 1) * config.batch_size)
    return [
        example.id
        for row in filter(None, (rows[place] for place in places))
        for example in mixture.stores[row.source].read(row.items)
    ]


class _Row(NamedTuple):
    """What a row is packed from."""

    source: int
    items: list[int]  # places in the source
    prefix: int  # positions that they begin with in common


def _row(source: int, rows: RowPlan, place: int) -> _Row:
    return _Row(source, rows[place], int(rows.prefix[place]))


def _endless_rows(mixture: Mixture, config: PipelineConfig) -> "grain.MapDataset[_Row]":
    """All rows in the order of training."""
    packed = [rows_of(store, config.row_length, config.packing) for store in mixture.stores]
    # Imported here: grain itself imports jax, and this module must load without.
    import grain

    streams = [
        grain.MapDataset.source(range(len(rows)))
        .seed(config.seed + index)
        .shuffle()
        .repeat()
        .map(functools.partial(_row, index, rows))
        for index, rows in enumerate(packed)
    ]
    # A single set is not mixed: its stream, and so an old run's place in it, stays what it was.
    return streams[0] if len(streams) == 1 else grain.MapDataset.mix(streams, mixture.weights)


def _read(stores: Sequence[Store], row_length: int, rows: Sequence[_Row]) -> Batch:
    """The batch of those rows; one read of each store, as a call costs more than a record does."""
    packed: list[Batch | None] = [None] * len(rows)
    for source, store in enumerate(stores):
        mine = [at for at, row in enumerate(rows) if row.source == source]
        items = [item for at in mine for item in rows[at].items]
        examples = iter(store.read(items) if items else ())
        for at in mine:
            of_row = [next(examples) for _ in rows[at].items]
            packed[at] = pack_row(of_row, row_length, rows[at].prefix)
    return stack_rows([row for row in packed if row is not None])


def _read_ahead(batches: "grain.MapDataset[Any]", config: PipelineConfig) -> Any:
    """One thread packs ahead of the step; more would only queue for the interpreter's lock."""
    import grain

    options = grain.ReadOptions(
        num_threads=min(config.prefetch, 1), prefetch_buffer_size=config.prefetch
    )
    ahead = batches.to_iter_dataset(options)
    if not config.workers:
        return ahead
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers ask for flags, which no one here gives
    return ahead.mp_prefetch(
        grain.MultiprocessingOptions(
            num_workers=config.workers, per_worker_buffer_size=max(config.prefetch, 1)
        )
    )


def eval_batches(
    examples: _Examples,
    config: PipelineConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Every example once, in a fixed order, in this process's part of each batch.

    Rows of padding, whose mask is 0, fill up the last batch: all batches have one shape, so one
    compiled evaluation serves them, and all processes see equally many.

    Raises:
      InputError: as `train_batches`.
    """
    local = local_size(config, process_index, process_count)
    stores = as_mixture(examples).stores
    packed = [rows_of(store, config.row_length, config.packing) for store in stores]
    count = -(-sum(map(len, packed)) // config.batch_size) * config.batch_size

    def row(place: int) -> _Row:
        for source, rows in enumerate(packed):
            if place < len(rows):
                return _row(source, rows, place)
            place -= len(rows)
        return _Row(0, [], 0)

    return (
        _read(stores, config.row_length, [row(place) for place in range(start, start + local)])
        for start in range(process_index * local, count, config.batch_size)
    )


def local_size(config: PipelineConfig, process_index: int, process_count: int) -> int:
    """Rows of each batch that one process holds.

    Raises:
      InputError: the batch does not divide over the processes, or there is no such process.
    """
    if config.batch_size % process_count:
        raise InputError(
            f"batch_size {config.batch_size} does not divide over {process_count} processes; "
            f"give a multiple of {process_count}"
        )
    if not 0 <= process_index < process_count:
        raise InputError(f"process_index {process_index}; allowed: 0 to {process_count - 1}")
    return config.batch_size // process_count


def batches_per_epoch(examples: _Examples, config: PipelineConfig) -> float:
    """How many global batches hold every example once; not whole, as epochs run on."""
    stores = as_mixture(examples).stores
    rows = sum(len(rows_of(store, config.row_length, config.packing)) for store in stores)
    return rows / config.batch_size


class RowBounds(NamedTuple):
    """What no row of a run exceeds: sizes that its step is compiled for."""

    trained: int  # positions that train; what `score_tokens` calls its capacity
    reach: RowLimits | None = None  # of the documents; None: a whole row


def row_bounds(examples: _Examples, config: PipelineConfig) -> RowBounds:
    """The tightest bounds of all packed rows."""
    found = []
    for store in as_mixture(examples).stores:
        rows = rows_of(store, config.row_length, config.packing)
        up_to = np.concatenate([[0], np.cumsum(store.trained[rows.items], dtype=np.int64)])
        trained = np.diff(up_to[rows.ends], prepend=0)
        held = np.diff(rows.ends, prepend=0)
        shared = np.where(held > 1, rows.prefix, 0)
        own = store.lengths[rows.items] - np.repeat(shared, held)
        most = own.max(initial=1), shared.max(initial=0), held.max(initial=1)
        reach = RowLimits(*map(int, most))
        found.append(RowBounds(int(trained.max(initial=0)), reach))
    return widest(found)


def widest(bounds: Iterable[RowBounds]) -> RowBounds:
    """What holds for the rows of all."""
    trained, reaches = zip(*bounds, strict=True)
    return RowBounds(max(trained), RowLimits(*map(max, zip(*reaches, strict=True))))

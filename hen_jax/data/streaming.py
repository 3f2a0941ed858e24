"""Packed batches from a store that does not fit in memory, to be taken up at any batch.

Each epoch has its own order of all examples. Every `window` of them in that order is packed by
itself, from lengths alone; the windows' rows follow one another, `batch_size` of them make a global
batch, and each process reads only its own rows. What would be shuffle and packing buffers
elsewhere are functions of the seed and of two numbers, the window and the row in it: these are the
whole state. It is the same for every process and every process count, so a run may be taken up on
another one, batch for batch. Memory is 4 bytes an example for the order, whatever has been read.
"""

import itertools
from collections.abc import Iterator
from typing import TypedDict

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.types import Batch
from hen_jax.data.packing import pack, pack_row, stack_rows
from hen_jax.data.pipeline import PipelineConfig, local_size
from hen_jax.data.stores import Store

WINDOW = 2048
"""Examples packed together: enough to fill rows to 99 %, few enough to plan in milliseconds."""


class Place(TypedDict):
    """Where a stream stands: the next row, counted within its window."""

    window: int
    row: int


class PackedStream:
    """An endless iterator over this process's `[B / process_count, T]` of each batch of a store.

    Holds an open store, so it is a class; `get_state` and `set_state` save and restore its place as
    JSON.

    Raises:
      InputError: an empty store, an example longer than a row, or a batch that does not divide
        over the processes.
    """

    def __init__(
        self,
        store: Store,
        config: PipelineConfig,
        *,
        window: int = WINDOW,
        process_index: int = 0,
        process_count: int = 1,
    ):
        local = local_size(config, process_index, process_count)
        if not len(store.lengths):
            raise InputError("the store holds no example")
        if (longest := int(store.lengths.max())) > config.row_length:
            raise InputError(
                f"the store has an example of {longest} positions; rows have {config.row_length}"
            )
        self._store, self._config, self._size = store, config, window
        self._epoch, self._order = -1, np.zeros(0, np.int32)
        self._mine = slice(process_index * local, (process_index + 1) * local)
        self._window, self._row = 0, 0
        self._plan = self._planned(0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        rows: list[list[int]] = []
        while len(rows) < self._config.batch_size:
            if self._row == len(self._plan):
                self._go_to({"window": self._window + 1, "row": 0})
            taken = self._plan[self._row :][: self._config.batch_size - len(rows)]
            rows += taken
            self._row += len(taken)
        mine = rows[self._mine]
        # One read for all rows: a call costs an ArrayRecord file far more than a record does.
        examples = iter(self._store.read([index for row in mine for index in row]))
        packed = [
            pack_row(list(itertools.islice(examples, len(row))), self._config.row_length)
            for row in mine
        ]
        return stack_rows(packed)

    def get_state(self) -> Place:
        """The place of the next batch."""
        return {"window": self._window, "row": self._row}

    def set_state(self, place: Place) -> None:
        """Goes to a place that `get_state` gave, of a stream with the same store and settings.

        Raises:
          InputError: the window does not have that row, so the store or a setting is another.
        """
        self._go_to(place)
        if place["row"] > len(self._plan):
            raise InputError(
                f"window {place['window']} has {len(self._plan)} rows, and the saved place is row "
                f"{place['row']}: the store, the row length or the seed is not the one it was "
                "saved with"
            )

    def _go_to(self, place: Place) -> None:
        self._plan = self._planned(place["window"])
        self._window, self._row = place["window"], place["row"]

    def _planned(self, window: int) -> list[list[int]]:
        """The rows of a window, as places in the store."""
        count = len(self._store.lengths)
        epoch, part = divmod(window, -(-count // self._size))
        if epoch != self._epoch:
            order = np.arange(count, dtype=np.int32)
            np.random.default_rng([self._config.seed, 0, epoch]).shuffle(order)
            self._epoch, self._order = epoch, order
        items = self._order[part * self._size : (part + 1) * self._size].tolist()
        lengths = self._store.lengths[items].tolist()
        rows = pack(lengths, self._config.row_length, self._config.packing)
        # Packing sorts by length: undone, so that a batch is not all long or all short examples.
        shuffled = np.random.default_rng([self._config.seed, 1, window]).permutation(len(rows))
        return [[items[at] for at in rows[row]] for row in shuffled.tolist()]

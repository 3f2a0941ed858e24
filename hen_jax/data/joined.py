"""Several streams of batches as one: each batch holds some rows of every stream."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from hen_jax.core.types import Batch
from hen_jax.data.pipeline import Batches


class Stream(NamedTuple):
    """The batches of one expert."""

    expert: int  # what its rows are called
    steps: int  # batches that train; then its rows are blank, while others train
    batches: Batches


class JoinedBatches:
    """An endless iterator over batches of all streams that knows its place.

    Its n-th batch is that of every stream, so one number is the place in all of them. Holds
    iterators that read ahead, so it is a class.
    """

    def __init__(self, streams: Sequence[Stream]):
        self._streams, self._next = streams, 0

    def __next__(self) -> Any:
        # After the last update of all, which no run asks for, every stream goes on.
        last = max(stream.steps for stream in self._streams)
        parts = {
            stream.expert: next(stream.batches)
            if self._next < stream.steps or self._next >= last
            else None
            for stream in self._streams
        }
        self._next += 1
        return join_batches(parts)

    def get_state(self) -> dict[str, int]:
        """The place of the next batch, as JSON."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a place that `get_state` gave."""
        for stream in self._streams:
            stream.batches.set_state(state)
        self._next = state["next_index"]


def join_all(streams: Mapping[int, Iterator[Any]]) -> Iterator[Any]:
    """The streams of the experts to the end of the longest; blank rows after the end of others."""
    for parts in zip_longest(*streams.values()):
        yield join_batches(dict(zip(streams, parts, strict=True)))


def join_batches(parts: Mapping[int, Any]) -> Any:
    """The rows of all experts one after another, with the number of their expert.

    Parts are `Batch`es, or records that hold some, such as `PreferenceBatch`. Rows of a part that
    is None train nothing, and are as many as those of another part.
    """
    some = next(part for part in parts.values() if part is not None)
    blank = _mapped(lambda leaves: np.zeros_like(leaves[0]), [some])
    whole = _mapped(np.concatenate, [blank if part is None else part for part in parts.values()])
    return _owned(whole, np.asarray(tuple(parts), np.int32))


def _mapped(function: Callable[[list[np.ndarray]], np.ndarray], records: list[Any]) -> Any:
    """`function` of each leaf of some records of one shape; leaves that are None stay so."""
    if records[0] is None:
        return None
    if isinstance(records[0], tuple):
        fields = (_mapped(function, list(leaves)) for leaves in zip(*records, strict=True))
        return type(records[0])(*fields)
    return function(records)


def _owned(record: Any, experts: np.ndarray) -> Any:
    """The record whose batches say of each row which expert's it is: equally many of each."""
    if isinstance(record, Batch):
        return record._replace(expert=np.repeat(experts, len(record.tokens) // len(experts)))
    if not isinstance(record, tuple):
        return record
    return type(record)(*(_owned(field, experts) for field in record))

"""Several streams of batches as one: each batch holds some rows of every stream."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

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

    def __next__(self) -> Batch:
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


def join_all(streams: Mapping[int, Iterator[Batch]]) -> Iterator[Batch]:
    """The streams of the experts to the end of the longest; blank rows after the end of others."""
    for parts in zip_longest(*streams.values()):
        yield join_batches(dict(zip(streams, parts, strict=True)))


def join_batches(parts: Mapping[int, Batch | None]) -> Batch:
    """The rows of all experts one after another, with the number of their expert.

    Rows of a part that is None train nothing, and are as many as those of another part.
    """
    some = next(part for part in parts.values() if part is not None)
    blank = Batch(*(None if leaf is None else np.zeros_like(leaf) for leaf in some))
    whole = [blank if part is None else part for part in parts.values()]
    leaves = (
        None if leaves[0] is None else np.concatenate(leaves) for leaves in zip(*whole, strict=True)
    )
    expert = np.repeat(np.asarray(tuple(parts), np.int32), len(some.tokens))
    return Batch(*leaves)._replace(expert=expert)

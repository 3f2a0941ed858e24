"""Rendered examples by place: in memory, or on disk for sets that do not fit there.

Beside the records on disk stand two numbers for each (8 bytes an example), which are all that
packing needs: rows are planned without reading a record, and read when their turn comes. Only
to find the prefixes that records share are all of them read, once.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hen_jax.core.cached import built_once, damage_of
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.folders import staged_folder
from hen_jax.core.records import require_record, write_record
from hen_jax.data.examples import Encoded, Example, encoding_summary
from hen_jax.data.packing import Packing, RowPlan, pack_all
from hen_jax.data.prefixes import PrefixGroups, find_prefixes, pack_by_prefix

_FILE = "examples.array_record"

STORE_KIND, ARRAYS = "examples", "arrays"
"""What the records call the folder of a store, and those of rows and prefixes in it."""

ARRAY_GROUP = 32
"""Examples of an ArrayRecord group. One each would be read fastest, were it not that a call to read
walks the index of all groups, which is also held in memory: 0.2 s and 300 MB for ten million."""

Reader = Callable[[Sequence[int]], list[Example]]
"""The examples at those places."""


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """Examples that are read when they are needed; to be sent to another process, if need be."""

    lengths: np.ndarray  # [n] int32, in positions; memory-mapped where the store is on disk
    trained: np.ndarray  # [n] int32, positions that train
    read: Reader
    folder: Path | None = None
    summary: str = ""  # what became of the documents, for a log

    def __len__(self) -> int:
        return len(self.lengths)


def in_memory(examples: Sequence[Example]) -> Store:
    """A store of a list."""
    numbers = np.array([_numbers(example) for example in examples], np.int32).reshape(-1, 2)
    return Store(numbers[:, 0], numbers[:, 1], functools.partial(_take, examples))


def in_memory_parts(encoded: Iterable[Encoded]) -> Store:
    """A store of all that was encoded."""
    parts = list(encoded)
    store = in_memory([example for part in parts for example in part.examples])
    counts = (sum(len(part.truncated) for part in parts), sum(len(part.dropped) for part in parts))
    return dataclasses.replace(store, summary=encoding_summary(len(store), *counts))


def write_store(encoded: Iterable[Encoded], folder: Path) -> Store:
    """Writes examples one by one to a new `folder`, and opens it.

    Raises:
      InputError: a folder that hen_jax did not write.
    """
    # Bytes and not a list: ten million examples take 80 MB here, and not a gigabyte.
    numbers, truncated, dropped = bytearray(), 0, 0

    def counted() -> Iterator[Example]:
        nonlocal truncated, dropped
        for part in encoded:
            truncated += len(part.truncated)
            dropped += len(part.dropped)
            for example in part.examples:
                numbers.extend(np.array(_numbers(example), np.int32).tobytes())
                yield example

    with staged_folder(folder, STORE_KIND, (RECORD, "examples.*", "*.npy")) as staged:
        _write_array_record(counted(), staged / _FILE)
        lengths, trained = np.frombuffer(numbers, np.int32).reshape(-1, 2).T
        np.save(staged / "lengths.npy", lengths)
        np.save(staged / "trained.npy", trained)
        counts = {"examples": len(lengths), "truncated": truncated, "dropped": dropped}
        write_record(staged, STORE_KIND, counts)
    return open_store(folder)


def open_store(folder: Path) -> Store:
    """Opens what `write_store` wrote.

    Raises:
      InputError: no store there, or a damaged one.
    """
    fault = damage(folder)
    if fault is not None:
        raise InputError(
            f"{folder} is no store of examples as it was written ({fault}); write it again with "
            "`write_store`"
        )
    return open_whole(folder)


def damage(folder: Path) -> str | None:
    """What is wrong with a store; None where each of its files is as it was written."""
    return damage_of(folder, STORE_KIND)


def open_whole(folder: Path) -> Store:
    """`open_store` of a folder that is known to be whole."""
    record = require_record(folder, STORE_KIND)
    return Store(
        lengths=np.load(folder / "lengths.npy", mmap_mode="r"),
        trained=np.load(folder / "trained.npy", mmap_mode="r"),
        read=functools.partial(_read_array_record, folder / _FILE, record["sha256"][_FILE]),
        folder=folder,
        summary=encoding_summary(record["examples"], record["truncated"], record["dropped"]),
    )


def rows_of(store: Store, row_length: int, packing: Packing) -> RowPlan:
    """The rows a store is packed into; those of a store on disk are kept beside it.

    Raises:
      InputError: no example, or one longer than a row.
    """
    if not len(store):
        raise InputError("no example to batch; the split or the file is empty")

    def packed() -> RowPlan:
        if packing != "shared_prefix":
            return pack_all(store.lengths, row_length, packing)
        groups = _kept(PrefixGroups, store, "prefixes", lambda: find_prefixes(_in_order(store)))
        return pack_by_prefix(store.lengths, row_length, groups)

    return _kept(RowPlan, store, f"rows.{row_length}.{packing}", packed)


_Arrays = TypeVar("_Arrays", RowPlan, PrefixGroups)


def _kept(kind: type[_Arrays], store: Store, name: str, make: Callable[[], _Arrays]) -> _Arrays:
    """What `make` gives; beside a store on disk it is made once, in a folder of its own."""
    if store.folder is None:
        return make()
    folder, fields = store.folder / name, [field.name for field in dataclasses.fields(kind)]

    def write(new: Path) -> None:
        new.mkdir()
        for field, array in vars(make()).items():
            np.save(new / f"{field}.npy", array)
        write_record(new, ARRAYS, {})

    built_once(folder, write, lambda found: damage_of(found, ARRAYS))
    return kind(*(np.load(folder / f"{field}.npy", mmap_mode="r") for field in fields))


READ_AT_ONCE = 4096
"""Examples read together where all are looked at, so that memory does not grow."""


def _in_order(store: Store) -> Iterator[Example]:
    for start in range(0, len(store), READ_AT_ONCE):
        yield from store.read(range(start, min(start + READ_AT_ONCE, len(store))))


def to_bytes(example: Example) -> bytes:
    """An example as one record: a count and a header of JSON, the tokens, the mask as bits."""
    header = json.dumps([example.id, example.group]).encode()
    sizes = np.asarray([len(header), len(example.tokens)], "<i4")
    tokens = np.asarray(example.tokens, "<i4")
    return b"".join(
        [sizes.tobytes(), header, tokens.tobytes(), np.packbits(example.mask).tobytes()]
    )


def from_bytes(record: bytes) -> Example:
    """The example that `to_bytes` wrote."""
    header, count = np.frombuffer(record, "<i4", 2).tolist()
    name, group = json.loads(record[8 : 8 + header])
    tokens = np.frombuffer(record, "<i4", count, 8 + header)
    bits = np.frombuffer(record, np.uint8, offset=8 + header + 4 * count)
    return Example(tokens, np.unpackbits(bits, count=count).astype(bool), name, group)


def _numbers(example: Example) -> tuple[int, int]:
    return example.length, int(np.count_nonzero(example.mask[1:]))


def _take(examples: Sequence[Example], places: Sequence[int]) -> list[Example]:
    return [examples[place] for place in places]


def _write_array_record(examples: Iterable[Example], path: Path) -> None:
    options = f"group_size:{ARRAY_GROUP},zstd:1"
    writer = _array_records().ArrayRecordWriter(str(path), options)
    try:
        for example in examples:
            writer.write(to_bytes(example))
    finally:
        writer.close()


@functools.lru_cache(maxsize=32)  # in each process that reads, as an open file cannot be sent
def _array_record(path: Path, _: str) -> Any:
    """The open file; the checksum tells one that was written anew from that of before."""
    # Reading ahead is for those who read in order; here it would hold memory for nothing.
    return _array_records().ArrayRecordReader(
        str(path), "readahead_buffer_size:0,max_parallelism:0"
    )


def _array_records() -> Any:
    """The library, which most commands never need; it has no types."""
    from array_record.python import array_record_module  # pyright: ignore

    return array_record_module


def _read_array_record(path: Path, content: str, places: Sequence[int]) -> list[Example]:
    return [from_bytes(record) for record in _array_record(path, content).read(list(places))]

"""Rendered examples on disk for sets that do not fit in memory: ArrayRecord or Parquet.

Beside the records stands the length of each (`lengths.npy`, 4 bytes an example), which is all that
packing needs: rows are planned without reading a record, and read when their turn comes.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD, read_json, staged_folder, write_json
from hen_jax.data.examples import Example

Format = Literal["array_record", "parquet"]
_FILES: dict[Format, str] = {"array_record": "examples.array_record", "parquet": "examples.parquet"}

ROW_GROUP = 64
"""Examples of a Parquet row group, the least that can be read: few, as training shuffles."""


class Reader(Protocol):
    """An open file of examples."""

    def __call__(self, indices: Sequence[int]) -> list[Example]:
        """The examples at those places."""
        ...


class Store(NamedTuple):
    """An open store: lengths in positions, and a reader of examples by place."""

    lengths: np.ndarray  # [n] int32, memory-mapped
    read: Reader


def write_store(examples: Iterable[Example], folder: Path, form: Format = "array_record") -> int:
    """Writes examples one by one to a new `folder`; returns how many.

    Raises:
      InputError: no such format, or a folder that hen_jax did not write.
    """
    if form not in get_args(Format):
        raise InputError(f"store format {form!r}; allowed: {', '.join(get_args(Format))}")
    write = {"array_record": _write_array_record, "parquet": _write_parquet}[form]
    lengths: list[int] = []

    def counted() -> Iterator[Example]:
        for example in examples:
            lengths.append(example.length)
            yield example

    with staged_folder(folder) as staged:
        write(counted(), staged / _FILES[form])
        np.save(staged / "lengths.npy", np.asarray(lengths, np.int32))
        write_json(staged / RECORD, {"format": form, "examples": len(lengths)})
    return len(lengths)


def open_store(folder: Path) -> Store:
    """Opens what `write_store` wrote.

    Raises:
      InputError: no store there.
    """
    record = read_json(folder / RECORD)
    form = record.get("format")
    if form not in _FILES:
        raise InputError(f"{folder} is no store of examples; write one with `write_store`")
    opened = {"array_record": _array_record_reader, "parquet": _parquet_reader}[form]
    return Store(np.load(folder / "lengths.npy", mmap_mode="r"), opened(folder / _FILES[form]))


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


def _write_array_record(examples: Iterable[Example], path: Path) -> None:
    from array_record.python import array_record_module  # pyright: ignore

    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    try:
        for example in examples:
            writer.write(to_bytes(example))
    finally:
        writer.close()


def _array_record_reader(path: Path) -> Reader:
    from array_record.python import array_record_module  # pyright: ignore

    # Reading ahead is for those who read in order; here it would hold memory for nothing.
    reader = array_record_module.ArrayRecordReader(
        str(path), "readahead_buffer_size:0,max_parallelism:0"
    )

    def read(indices: Sequence[int]) -> list[Example]:
        return [from_bytes(record) for record in reader.read(list(indices))]

    return read


def _schema() -> Any:
    import pyarrow

    return pyarrow.schema(
        {
            "id": pyarrow.string(),
            "group": pyarrow.string(),
            "tokens": pyarrow.list_(pyarrow.int32()),
            "mask": pyarrow.list_(pyarrow.bool_()),
        }
    )


def _write_parquet(examples: Iterable[Example], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = _schema()
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        rows: list[dict[str, Any]] = []
        for example in examples:
            rows.append(
                {
                    "id": example.id,
                    "group": example.group,
                    "tokens": example.tokens,
                    "mask": example.mask,
                }
            )
            if len(rows) == ROW_GROUP:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _parquet_reader(path: Path) -> Reader:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)

    @functools.lru_cache(maxsize=256)
    def group(index: int) -> list[dict[str, Any]]:
        return file.read_row_group(index).to_pylist()

    def read(indices: Sequence[int]) -> list[Example]:
        rows = [group(index // ROW_GROUP)[index % ROW_GROUP] for index in indices]
        return [
            Example(
                np.asarray(row["tokens"], np.int32),
                np.asarray(row["mask"], bool),
                row["id"],
                row["group"],
            )
            for row in rows
        ]

    return read

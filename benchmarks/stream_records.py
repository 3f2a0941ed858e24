"""Ten million records: written to an ArrayRecord file, packed, shuffled and streamed from it.

    python benchmarks/stream_records.py --records 10000000

Prints memory while writing and while streaming. What a set takes is 8 bytes an example for its
lengths and 4 for its rows, memory-mapped, whatever is read: the memory of the process itself (RSS
without mapped files) must not grow with what was streamed. Every batch is read from all over the
file, as in training. The files (about 150 bytes a record) are removed at the end unless `--folder`
names a place for them.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PART = 10_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--batches", type=int, default=1200, help="streamed, of 8 rows of 1,024")
    parser.add_argument("--folder", type=Path, help="where the store is, or is to be")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "store"
        report = {"records": arguments.records, "start": memory()}
        report |= write(folder, arguments.records)
        report |= stream(folder, arguments.batches, arguments.workers)
    print(json.dumps(report, indent=2))


def write(folder: Path, records: int) -> dict:
    from hen_jax.data.stores import write_store

    if folder.exists():
        return {}
    start = time.perf_counter()
    store = write_store(synthetic(records), folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {
        "write_s": round(time.perf_counter() - start, 1),
        "bytes_a_record": round(size / len(store)),
        "after_writing": memory(),
    }


def synthetic(records: int) -> Iterator:
    """Examples of 8 to 39 tokens, one after another."""
    from hen_jax.data.examples import Encoded, Example

    tokens, mask = np.arange(1, 41, dtype=np.int32), np.arange(40) > 3
    random = np.random.default_rng(0)
    for first in range(0, records, PART):
        lengths = random.integers(8, 40, min(PART, records - first)).tolist()
        yield Encoded(
            [Example(tokens[:n], mask[:n], str(first + i), "") for i, n in enumerate(lengths)],
            (),
            (),
        )
        if first // PART % 100 == 0:
            print(f"{first:,} written, {memory()}", flush=True)


def stream(folder: Path, batches: int, workers: int) -> dict:
    from hen_jax.data.pipeline import PipelineConfig, train_batches
    from hen_jax.data.stores import open_store, rows_of

    config = PipelineConfig(row_length=1024, batch_size=8, workers=workers)
    store = open_store(folder)
    start = time.perf_counter()
    rows = rows_of(store, config.row_length, config.packing)
    plan_s = time.perf_counter() - start
    stream = train_batches(store, config)
    first, filled, seen = memory_after(stream), [], []
    start = time.perf_counter()
    for _ in range(6):
        part = [(b.segments != 0).mean() for b in itertools.islice(stream, batches // 6)]
        filled.append(float(np.mean(part)))
        seen.append(memory())
        print(f"{stream.get_state()['next_index']} batches, {seen[-1]}", flush=True)
    rate = batches // 6 * 6 / (time.perf_counter() - start)
    stream.set_state({"next_index": len(rows) // config.batch_size - 5})
    list(itertools.islice(stream, 10))  # over the end of the epoch
    return {
        "rows": len(rows),
        "plan_s": round(plan_s, 1),
        "filled": round(float(np.mean(filled)), 4),
        "batches_a_second": round(rate, 1),
        "first_batch": first,
        "streaming": seen,
        "after_a_jump_to_the_last_batches": memory(),
        "own_memory_grew_mib": seen[-1]["own_mib"] - first["own_mib"],
    }


def memory_after(stream) -> dict:
    next(stream)
    return memory()


def memory() -> dict:
    """MiB of this process: its own, and pages of files that the system may take back."""
    pages = Path("/proc/self/statm").read_text().split()
    mib = os.sysconf("SC_PAGE_SIZE") / 2**20
    resident, mapped = int(pages[1]), int(pages[2])
    return {"own_mib": round((resident - mapped) * mib), "mapped_mib": round(mapped * mib)}


if __name__ == "__main__":
    main()

"""Whether a consumer of 50 batches a second ever waits for the loader.

    python benchmarks/loader_rate.py --workers 2

A batch is 8 packed rows of 1,024 tokens, read from an ArrayRecord store of synthetic conversations
as in training. The consumer takes one every 20 ms, as an accelerator would; a batch that is not
there within 20 ms is late. Also prints how many batches a second the loader gives at most.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

PERIOD = 1 / 50


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="0: a thread of this process")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--prefetch", type=int, default=8)
    arguments = parser.parse_args()
    from hen_jax.data.pipeline import PipelineConfig, train_batches
    from hen_jax.data.stores import write_store

    config = PipelineConfig(workers=arguments.workers, prefetch=arguments.prefetch)
    with tempfile.TemporaryDirectory() as folder:
        batches = train_batches(
            write_store(conversations(arguments.records), Path(folder) / "store"), config
        )
        start = time.perf_counter()
        next(batches)
        ready = time.perf_counter() - start
        report = {"workers": arguments.workers, "first_batch_s": round(ready, 2)}
        report |= paced(batches, int(arguments.seconds / PERIOD))
        start = time.perf_counter()
        list(itertools.islice(batches, 500))
        report["at_most_a_second"] = round(500 / (time.perf_counter() - start))
    print(json.dumps(report, indent=2))


def conversations(records: int):
    """Examples as long as real conversations of a few turns: 40 to 400 tokens."""
    from hen_jax.data.examples import Encoded, Example

    random = np.random.default_rng(0)
    made = [
        Example(
            random.integers(0, 50_000, n).astype(np.int32),
            np.arange(n) > n // 2,
            str(number),
            str(number),
        )
        for number, n in enumerate(random.integers(40, 400, records))
    ]
    return [Encoded(made, (), ())]


def paced(batches, count: int) -> dict:
    """Takes a batch every 20 ms and counts those that were not there in time."""
    waits, due = [], time.perf_counter()
    for _ in range(count):
        due += PERIOD
        time.sleep(max(0.0, due - time.perf_counter()))
        before = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - before)
    waits.sort()
    return {
        "batches": count,
        "late": sum(wait > PERIOD for wait in waits),
        "median_wait_ms": round(1e3 * statistics.median(waits), 2),
        "p99_wait_ms": round(1e3 * waits[int(len(waits) * 0.99)], 2),
        "longest_wait_ms": round(1e3 * waits[-1], 2),
    }


if __name__ == "__main__":
    main()

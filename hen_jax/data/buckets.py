"""Unpacked examples in rows of a few lengths: for losses that want one document a row.

Each batch holds examples of one bucket, so a step is compiled once per bucket and little is spent
on padding. Packing is cheaper still where documents may share a row.
"""

import bisect
from collections.abc import Sequence

from hen_jax.core.errors import InputError
from hen_jax.data.examples import Example
from hen_jax.data.packing import pack_row, stack_rows
from hen_jax.data.pipeline import Batches, PipelineConfig, local_size


def buckets_of(examples: Sequence[Example], buckets: Sequence[int]) -> dict[int, list[int]]:
    """The indices of the examples under the least bucket that holds each: `{64: [0, 3], ...}`.

    Raises:
      InputError: an example longer than the greatest bucket; names it.
    """
    lengths = sorted(set(buckets))
    found: dict[int, list[int]] = {}
    for index, example in enumerate(examples):
        at = bisect.bisect_left(lengths, example.length)
        if at == len(lengths):
            raise InputError(
                f"example {example.id} takes {example.length} positions; the greatest bucket has "
                f"{lengths[-1] if lengths else 0}"
            )
        found.setdefault(lengths[at], []).append(index)
    return dict(sorted(found.items()))


def bucket_batches(
    examples: Sequence[Example],
    buckets: Sequence[int],
    config: PipelineConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """An endless iterator over batches `[B / process_count, bucket]`, one example a row.

    Buckets take turns in proportion to their examples; all processes are in the same one at the
    same step. `row_length` and `packing` of the config are not used.

    Raises:
      InputError: no example, one longer than every bucket, or a batch that does not divide over
        the processes.
    """
    local = local_size(config, process_index, process_count)
    found = buckets_of(examples, buckets)
    if not found:
        raise InputError("no example to batch; the split or the file is empty")
    # Imported here: grain itself imports jax, and this module must load without.
    import grain

    streams = [
        grain.MapDataset.source(indices)
        .seed(config.seed + length)
        .shuffle()
        .repeat()
        .map(lambda index, length=length: pack_row([examples[index]], length))
        .batch(local, drop_remainder=True, batch_fn=stack_rows)[process_index::process_count]
        for length, indices in found.items()
    ]
    weights = [len(indices) for indices in found.values()]
    batches = streams[0] if len(streams) == 1 else grain.MapDataset.mix(streams, weights)
    return Batches(batches, config)

"""Examples to a stream of batches that can be stopped and taken up at any batch.

The order of things: examples are packed into rows once; the rows are shuffled anew each epoch and
repeated without end; every run of `batch_size` rows is one global batch; process `p` of `P` takes
the `p`-th of its `P` equal slices. Epochs run on into each other, so no row is left over, and the
state is one number, the next global batch: it is the same for every process count, so a run may be
taken up on another one, batch for batch.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hen_jax.core.errors import InputError
from hen_jax.core.types import Batch
from hen_jax.data.examples import Document, Encoded, Example, Overlong, encode
from hen_jax.data.packing import Packing, pack, pack_row, stack_rows
from hen_jax.text.chat import ChatFormat

if TYPE_CHECKING:
    import grain
    from transformers import PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """How documents become batches.

    Raises:
      InputError: a size is not positive.
    """

    row_length: int = 1024  # T
    batch_size: int = 8  # B, rows of one batch over all processes
    packing: Packing = "fewest_rows"
    overlong: Overlong = "truncate"  # what becomes of a document longer than a row
    seed: int = 0  # of the shuffle
    prefetch: int = 2  # batches prepared ahead by a thread; 0 for none

    def __post_init__(self):
        for name, least in {"row_length": 1, "batch_size": 1, "prefetch": 0}.items():
            value = dataclasses.asdict(self)[name]
            if value < least:
                raise InputError(f"{name} is {value}; allowed: {least} or more")


def encode_for(
    config: PipelineConfig,
    documents: Sequence[Document],
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
) -> Encoded:
    """Examples that fit the rows of `config`; `hen_jax.data.examples.encode` has the details."""
    return encode(
        documents,
        tokenizer,
        chat_format,
        max_length=config.row_length,
        overlong=config.overlong,
    )


def train_batches(
    examples: Sequence[Example],
    config: PipelineConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> "grain.DatasetIterator[Batch]":
    """An endless iterator over this process's part `[B / process_count, T]` of each batch.

    `get_state()` and `set_state(state)` of the iterator save and restore its place.

    Raises:
      InputError: no example, one longer than a row, or a batch that does not divide over the
        processes.
    """
    return mixed_batches(
        [examples], [1.0], config, process_index=process_index, process_count=process_count
    )


def mixed_batches(
    sources: Sequence[Sequence[Example]],
    weights: Sequence[float],
    config: PipelineConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> "grain.DatasetIterator[Batch]":
    """`train_batches` of several sets: of every so many rows, each set gives its weight's share.

    Each set is packed by itself, shuffled and repeated at its own pace, so a small set may have
    gone round three times while a large one has not been seen whole. The mixing is exact and not
    by chance: weights 3 and 1 give three rows of the first set to each of the second.

    Raises:
      InputError: as `train_batches`; also weights that are not one positive number for each set.
    """
    local = local_size(config, process_index, process_count)
    if len(weights) != len(sources) or not all(weight > 0 for weight in weights):
        raise InputError(
            f"{len(sources)} sets and the weights {list(weights)}; give each set a positive weight"
        )
    packed = [_rows(examples, config) for examples in sources]
    # Imported here: grain itself imports jax, and this module must load without.
    import grain

    streams = [
        grain.MapDataset.source(rows)
        .seed(config.seed + index)
        .shuffle()
        .repeat()
        .map(lambda row, examples=examples: _packed(row, examples, config))
        for index, (rows, examples) in enumerate(zip(packed, sources, strict=True))
    ]
    # A single set is not mixed: its stream, and so an old run's place in it, stays what it was.
    rows = streams[0] if len(streams) == 1 else grain.MapDataset.mix(streams, weights)
    batches = rows.batch(local, drop_remainder=True, batch_fn=stack_rows)
    return iter(batches[process_index::process_count].to_iter_dataset(read_ahead(config)))


def read_ahead(config: PipelineConfig) -> "grain.ReadOptions":
    """One thread packs ahead of the step; more would only queue for the interpreter's lock."""
    import grain

    return grain.ReadOptions(
        num_threads=min(config.prefetch, 1), prefetch_buffer_size=config.prefetch
    )


def eval_batches(
    examples: Sequence[Example],
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
    rows = _rows(examples, config)
    rows += [[] for _ in range(-len(rows) % config.batch_size)]
    return (
        stack_rows([_packed(row, examples, config) for row in rows[start : start + local]])
        for start in range(process_index * local, len(rows), config.batch_size)
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


def batches_per_epoch(examples: Sequence[Example], config: PipelineConfig) -> float:
    """How many global batches hold every example once; not whole, as epochs run on."""
    return len(_rows(examples, config)) / config.batch_size


def trained_capacity(examples: Sequence[Example], config: PipelineConfig) -> int:
    """The most positions that any packed row trains; what `score_tokens` calls its capacity."""
    trained = [int(example.mask[1:].sum()) for example in examples]
    return max(sum(trained[index] for index in row) for row in _rows(examples, config))


def _rows(examples: Sequence[Example], config: PipelineConfig) -> list[list[int]]:
    if not examples:
        raise InputError("no example to batch; the split or the file is empty")
    return pack([example.length for example in examples], config.row_length, config.packing)


def _packed(row: Sequence[int], examples: Sequence[Example], config: PipelineConfig) -> Batch:
    return pack_row([examples[index] for index in row], config.row_length)

"""A stream of batches that is the same however it is interrupted or shared out."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from typing import get_args

import numpy as np
import pytest

from hen_jax.core.errors import InputError
from hen_jax.core.types import Batch
from hen_jax.data.examples import Example
from hen_jax.data.packing import Packing
from hen_jax.data.pipeline import PipelineConfig, batches_per_epoch, eval_batches, train_batches

CONFIG = PipelineConfig(row_length=16, batch_size=4, seed=3)
# Example n is made of the token n only, so that a batch shows which examples are in it.
EXAMPLES = [
    Example(np.full(4 + n % 7, n, np.int32), np.arange(4 + n % 7) > 1, f"example {n}", str(n))
    for n in range(1, 24)
]


def take(count: int, batches) -> list[Batch]:
    return list(itertools.islice(batches, count))


def assert_same(first: list[Batch], second: list[Batch]):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for ours, theirs in zip(a[:5], b[:5], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def seen(batches: list[Batch]) -> Counter:
    """How often each example is in the batches."""
    return Counter(
        int(row.tokens[row.segments == segment][0])
        for batch in batches
        for row in (Batch(*fields) for fields in zip(*batch[:5], strict=True))
        for segment in range(1, row.segments.max() + 1)
    )


@pytest.mark.parametrize("prefetch", [0, 2])
def test_resuming_at_any_batch_gives_the_same_stream(prefetch):
    config = PipelineConfig(row_length=16, batch_size=4, seed=3, prefetch=prefetch)
    total = 8  # more than two epochs
    assert batches_per_epoch(EXAMPLES, config) < total / 2
    whole = take(total, train_batches(EXAMPLES, config))
    for stop in range(total):
        interrupted = train_batches(EXAMPLES, config)
        before = take(stop, interrupted)
        saved = json.loads(json.dumps(interrupted.get_state()))
        resumed = train_batches(EXAMPLES, config)
        resumed.set_state(saved)
        assert_same(before + take(total - stop, resumed), whole)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_processes_parts_make_up_the_global_batch(processes):
    whole = take(6, train_batches(EXAMPLES, CONFIG))
    parts = [
        take(6, train_batches(EXAMPLES, CONFIG, process_index=p, process_count=processes))
        for p in range(processes)
    ]
    joined = [Batch(*map(np.concatenate, zip(*(b[:5] for b in row), strict=True)))
              for row in zip(*parts, strict=True)]  # fmt: skip
    assert_same(joined, whole)


def test_a_run_goes_on_with_another_number_of_processes():
    whole = take(5, train_batches(EXAMPLES, CONFIG))
    alone = train_batches(EXAMPLES, CONFIG)
    take(3, alone)
    second_of_two = train_batches(EXAMPLES, CONFIG, process_index=1, process_count=2)
    second_of_two.set_state(alone.get_state())
    assert_same(take(2, second_of_two), [Batch(*(f[2:] for f in b[:5])) for b in whole[3:]])


@pytest.mark.parametrize("packing", get_args(Packing))
def test_each_epoch_holds_every_example_once_in_another_order(packing: Packing):
    config = PipelineConfig(row_length=16, batch_size=1, packing=packing)
    rows = round(batches_per_epoch(EXAMPLES, config))
    stream = train_batches(EXAMPLES, config)
    first, second = take(rows, stream), take(rows, stream)
    once = dict.fromkeys(range(1, 24), 1)
    assert seen(first) == seen(second) == once
    assert [b.tokens.tolist() for b in first] != [b.tokens.tolist() for b in second]


def test_documents_behind_one_opening_train_the_tokens_of_documents_apart():
    """Three of them to a row, which has no room for two with a prefix each."""
    prefix = np.arange(100, 116, dtype=np.int32)
    examples = [
        Example(np.append(prefix, one.tokens[:4]), np.arange(20) > 17, one.id, one.group)
        for one in EXAMPLES
    ]
    found, rows = {}, {}
    packings: tuple[Packing, ...] = ("shared_prefix", "fewest_rows")
    for packing in packings:
        config = PipelineConfig(row_length=25, batch_size=1, packing=packing)
        rows[packing] = round(batches_per_epoch(examples, config))
        epoch = take(rows[packing], train_batches(examples, config))
        found[packing] = Counter(
            (int(b.tokens[0, t]), int(b.targets[0, t]), int(b.positions[0, t]))
            for b in epoch
            for t in np.flatnonzero(b.mask[0])
        )
        assert seen(epoch).total() == len(examples)
    assert found["shared_prefix"] == found["fewest_rows"]
    assert rows == {"shared_prefix": 8, "fewest_rows": 23}


def test_the_seed_decides_the_order():
    same, other = (
        take(3, train_batches(EXAMPLES, PipelineConfig(row_length=16, batch_size=4, seed=seed)))
        for seed in (3, 4)
    )
    assert_same(same, take(3, train_batches(EXAMPLES, CONFIG)))
    assert any((a.tokens != b.tokens).any() for a, b in zip(same, other, strict=True))


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_sees_every_example_once_in_one_shape(processes):
    parts = [
        list(eval_batches(EXAMPLES, CONFIG, process_index=p, process_count=processes))
        for p in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    batches = [batch for part in parts for batch in part]
    assert {field.shape for batch in batches for field in batch[:5]} == {(4 // processes, 16)}
    assert seen(batches) == dict.fromkeys(range(1, 24), 1)
    assert any((batch.segments.max(axis=1) == 0).any() for batch in batches)  # filled up
    assert sum(b.mask.sum() for b in batches) == sum(e.mask[1:].sum() for e in EXAMPLES)


def test_batches_have_the_types_of_the_contract():
    (batch,) = take(1, train_batches(EXAMPLES, CONFIG))
    kinds = [np.int32, np.int32, np.float32, np.int32, np.int32]
    assert [field.dtype for field in batch[:5]] == kinds
    assert {field.shape for field in batch[:5]} == {(4, 16)}


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="batch_size is 0; allowed: 1 or more"):
        PipelineConfig(batch_size=0)
    with pytest.raises(InputError, match="give a multiple of 3"):
        train_batches(EXAMPLES, CONFIG, process_count=3)
    with pytest.raises(InputError, match="allowed: 0 to 1"):
        eval_batches(EXAMPLES, CONFIG, process_index=2, process_count=2)
    with pytest.raises(InputError, match="no example"):
        train_batches([], CONFIG)
    with pytest.raises(InputError, match="does not fit in a row of 4"):
        train_batches(EXAMPLES, PipelineConfig(row_length=4))


def test_the_numpy_floors_load_neither_jax_nor_transformers_nor_grain():
    """grain imports jax (grain/_src/core/grain_random.py), so it is imported when batches begin."""
    modules = ("data.pipeline", "data.samples", "text.prompts", "text.tokenizer", "empathy.scales")
    code = f"""
import sys
import {", ".join("hen_jax." + module for module in modules)}
loaded = [m for m in ("jax", "flax", "transformers", "grain", "ml_collections") if m in sys.modules]
assert not loaded, loaded
import grain
assert "jax" in sys.modules, "grain no longer imports jax: import it at the top of pipeline.py"
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

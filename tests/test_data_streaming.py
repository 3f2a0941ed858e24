"""Streams from disk, buckets, mixtures and caches lose nothing and can be taken up anywhere."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.core.types import Batch
from hen_jax.data.buckets import bucket_batches, buckets_of
from hen_jax.data.cache import cache_key, encode_cached
from hen_jax.data.examples import Document, Example
from hen_jax.data.pipeline import PipelineConfig, encode_for, mixed_batches, train_batches
from hen_jax.data.stores import from_bytes, open_store, to_bytes, write_store
from hen_jax.data.streaming import PackedStream
from hen_jax.text.chat import FORMATS
from hen_jax.text.conversation import Conversation, Message

CONFIG = PipelineConfig(row_length=16, batch_size=4, seed=3)
# Example n is made of the token n only, so that a batch shows which examples are in it.
EXAMPLES = [
    Example(np.full(4 + n % 7, n, np.int32), np.arange(4 + n % 7) > 1, f"例 {n}", str(n))
    for n in range(1, 40)
]


def take(count: int, batches) -> list[Batch]:
    return list(itertools.islice(batches, count))


def tokens(batches: list[Batch]) -> list:
    return [batch.tokens.tolist() for batch in batches]


@pytest.fixture(scope="module", params=["array_record", "parquet"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / request.param
    assert write_store(iter(EXAMPLES), folder, request.param) == len(EXAMPLES)
    return open_store(folder)


@given(
    st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), max_size=20), st.text(), st.text()
)
def test_an_example_survives_its_bytes(items, name, group):
    numbers, mask = ([item[side] for item in items] for side in (0, 1))
    name, group = (text.encode("utf-8", "replace").decode() for text in (name, group))
    read = from_bytes(
        to_bytes(Example(np.asarray(numbers, np.int32), np.asarray(mask, bool), name, group))
    )
    assert (read.tokens.tolist(), read.mask.tolist(), read.id, read.group) == (
        numbers, mask, name, group
    )  # fmt: skip


def test_a_store_gives_back_its_examples_in_any_order(store):
    order = [5, 38, 0, 5]
    for read, index in zip(store.read(order), order, strict=True):
        made = EXAMPLES[index]
        assert (read.id, read.group) == (made.id, made.group)
        np.testing.assert_array_equal(read.tokens, made.tokens)
        np.testing.assert_array_equal(read.mask, made.mask)
    assert store.lengths.tolist() == [made.length for made in EXAMPLES]


def test_an_epoch_of_a_stream_holds_every_example_once(store):
    """The mask sums of an epoch are those of its examples: packing loses and adds nothing."""
    one_row = PipelineConfig(row_length=16, batch_size=1, seed=3)
    stream = PackedStream(store, one_row, window=7)
    epoch = list(itertools.takewhile(lambda _: stream.get_state()["window"] < 6, stream))
    seen = sorted(
        int(batch.tokens[batch.segments == segment][0])
        for batch in epoch
        for segment in range(1, batch.segments.max() + 1)
    )
    assert seen == list(range(1, 40))
    assert sum(batch.mask.sum() for batch in epoch) == sum(e.mask[1:].sum() for e in EXAMPLES)


@settings(deadline=None, max_examples=25)
@given(stop=st.integers(0, 14), window=st.integers(3, 60), processes=st.sampled_from([1, 2, 4]))
def test_a_stream_resumes_at_any_batch_on_any_number_of_processes(
    tmp_path_factory, stop, window, processes
):
    folder = tmp_path_factory.getbasetemp() / "resumed"
    if not folder.exists():
        write_store(EXAMPLES, folder)
    store = open_store(folder)
    whole = take(16, PackedStream(store, CONFIG, window=window))
    interrupted = PackedStream(store, CONFIG, window=window)
    take(stop, interrupted)
    saved = json.loads(json.dumps(interrupted.get_state()))
    parts = []
    for process in range(processes):
        resumed = PackedStream(
            store, CONFIG, window=window, process_index=process, process_count=processes
        )
        resumed.set_state(saved)
        parts.append(take(16 - stop, resumed))
    for batch, *shares in zip(whole[stop:], *parts, strict=True):
        for field in range(5):
            joined = np.concatenate([share[field] for share in shares])
            np.testing.assert_array_equal(joined, batch[field])


def test_bad_streams_and_stores_are_refused(store, tmp_path):
    with pytest.raises(InputError, match="rows have 4"):
        PackedStream(store, PipelineConfig(row_length=4))
    with pytest.raises(InputError, match="is not the one it was saved with"):
        PackedStream(store, CONFIG).set_state({"window": 0, "row": 10_000})
    write_store([], tmp_path / "empty")
    with pytest.raises(InputError, match="no example"):
        PackedStream(open_store(tmp_path / "empty"), CONFIG)
    with pytest.raises(InputError, match="allowed: array_record, parquet"):
        write_store([], tmp_path / "odd", "zip")  # pyright: ignore[reportArgumentType]


def test_buckets_hold_each_example_in_the_least_that_fits():
    found = buckets_of(EXAMPLES, [4, 6, 12])
    assert sorted(itertools.chain(*found.values())) == list(range(39))
    assert all(EXAMPLES[i].length <= bucket for bucket in found for i in found[bucket])
    assert all(EXAMPLES[i].length > 4 for i in found[6] + found[12])
    with pytest.raises(InputError, match=r"takes 9 positions; the greatest bucket has 8"):
        buckets_of(EXAMPLES, [8])


def test_bucket_batches_have_few_shapes_take_fair_turns_and_resume():
    buckets = [4, 6, 12]
    stream = bucket_batches(EXAMPLES, buckets, CONFIG)
    batches = take(39, stream)  # four epochs
    assert {batch.tokens.shape for batch in batches} == {(4, 4), (4, 6), (4, 12)}
    turns = {T: sum(batch.tokens.shape[1] == T for batch in batches) for T in buckets}
    shares = {T: len(i) for T, i in buckets_of(EXAMPLES, buckets).items()}
    assert all(abs(turns[T] - shares[T]) <= 1 for T in buckets)
    assert all(batch.segments.max() == 1 for batch in batches)
    resumed = bucket_batches(EXAMPLES, buckets, CONFIG)
    first = take(5, resumed)
    state = resumed.get_state()
    again = bucket_batches(EXAMPLES, buckets, CONFIG)
    again.set_state(state)
    assert tokens(first + take(9, again)) == tokens(batches[:14])
    halves = [
        take(9, bucket_batches(EXAMPLES, buckets, CONFIG, process_index=p, process_count=2))
        for p in (0, 1)
    ]
    joined = [np.concatenate([a.tokens, b.tokens]).tolist() for a, b in zip(*halves, strict=True)]
    assert joined == tokens(batches[:9])


def test_a_mixture_keeps_its_weights_and_resumes():
    small, large = EXAMPLES[:6], EXAMPLES[6:]
    stream = mixed_batches([small, large], [1, 3], CONFIG)
    batches = take(12, stream)
    rows = np.concatenate([batch.tokens[:, 0] for batch in batches])
    assert int((rows <= 6).sum()) == 12  # a quarter of 48
    resumed = mixed_batches([small, large], [1, 3], CONFIG)
    resumed.set_state(json.loads(json.dumps(stream.get_state())))
    assert tokens(take(3, resumed)) == tokens(take(3, stream))
    assert tokens(take(3, mixed_batches([EXAMPLES], [5], CONFIG))) == tokens(
        take(3, train_batches(EXAMPLES, CONFIG))
    )
    with pytest.raises(InputError, match="a positive weight"):
        mixed_batches([small, large], [1, 0], CONFIG)


def document(name: str, reply: str) -> Document:
    return Document(name, name, Conversation((Message("user", "Hi"), Message("assistant", reply))))


def test_a_cache_gives_what_encoding_gives_and_is_never_stale(tmp_path, monkeypatch):
    words = (tiny_tokenizer(), FORMATS[0])
    config = PipelineConfig(row_length=32)
    documents = [document("a", "Yes."), document("b", "No " * 40), document("c", "嗯。")]
    direct = encode_for(config, documents, *words)
    encode_cached(config, documents, *words, tmp_path)
    monkeypatch.setattr("hen_jax.data.cache.encode_for", None)  # from here on it must be read
    cached = encode_cached(config, documents, *words, tmp_path)
    assert cached.dropped == direct.dropped == ("b",)
    for ours, theirs in zip(cached.examples, direct.examples, strict=True):
        assert (ours.id, ours.group) == (theirs.id, theirs.group)
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
    other = tiny_tokenizer()
    other.add_tokens(["new"])
    keys = {
        cache_key(config, documents, *words),
        cache_key(config, documents[::-1], *words),
        cache_key(config, [*documents[:2], document("c", "嗯！")], *words),
        cache_key(config, documents, other, words[1]),
        cache_key(config, documents, words[0], FORMATS[1]),
        cache_key(PipelineConfig(row_length=33), documents, *words),
    }
    assert len(keys) == 6

"""Stores on disk, mixtures and caches lose nothing and can be taken up anywhere."""

import dataclasses
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.core.types import SHARED, Batch, RowLimits
from hen_jax.data.cache import cache_key, cached, file_fingerprint
from hen_jax.data.examples import Document, Encoded, Example, encode, encode_parts
from hen_jax.data.packing import pack_all
from hen_jax.data.pipeline import (
    Mixture,
    PipelineConfig,
    RowBounds,
    batches_per_epoch,
    eval_batches,
    row_bounds,
    train_batches,
    train_records,
)
from hen_jax.data.stores import (
    from_bytes,
    in_memory,
    open_store,
    rows_of,
    to_bytes,
    write_store,
)
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.detect import detect_format
from hen_jax.text.formats import CHATML
from hen_jax.text.tokenizer import ChatTokenizer

CONFIG = PipelineConfig(row_length=16, batch_size=4, seed=3)
# Example n is made of the token n only, so that a batch shows which examples are in it.
EXAMPLES = [
    Example(np.full(4 + n % 7, n, np.int32), np.arange(4 + n % 7) > 1, f"例 {n}", str(n))
    for n in range(1, 40)
]


SHARING = dataclasses.replace(CONFIG, packing="shared_prefix", row_length=48)
PREFIX = 100  # the first of the tokens of a prefix


def opened(length: int, examples: list[Example]) -> list[Example]:
    """The examples, each behind the same tokens, which do not train."""
    prefix = np.arange(PREFIX, PREFIX + length, dtype=np.int32)[::-1]
    return [
        dataclasses.replace(
            one,
            tokens=np.concatenate([prefix, one.tokens]),
            mask=np.concatenate([np.zeros(length, bool), one.mask]),
        )
        for one in examples
    ]


def take(count: int, batches) -> list[Batch]:
    return list(itertools.islice(batches, count))


def tokens(batches: list[Batch]) -> list:
    return [batch.tokens.tolist() for batch in batches]


def assert_same(first: list[Batch], second: list[Batch]):
    for ours, theirs in zip(first, second, strict=True):
        for field in range(5):
            np.testing.assert_array_equal(ours[field], theirs[field])


def encoded(examples: list[Example]) -> list[Encoded]:
    return [Encoded(examples[:10], ("cut",), ()), Encoded(examples[10:], (), ("left", "out"))]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(encoded(EXAMPLES), tmp_path_factory.mktemp("stores") / "store")


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
    assert store.trained.tolist() == [made.mask[1:].sum() for made in EXAMPLES]
    assert store.summary.startswith("39 examples, 1 of them without their oldest turns, 2 left out")


def test_a_store_gives_the_batches_that_its_list_gives(store, tmp_path):
    """Also after it was packed and its rows were written down, and in another process."""
    for _ in range(2):
        assert tokens(take(9, train_batches(store, CONFIG))) == tokens(
            take(9, train_batches(EXAMPLES, CONFIG))
        )
    assert tokens(list(eval_batches(store, CONFIG))) == tokens(list(eval_batches(EXAMPLES, CONFIG)))
    assert batches_per_epoch(store, CONFIG) == batches_per_epoch(EXAMPLES, CONFIG)
    sent = pickle.loads(pickle.dumps(store))
    assert sent.read([3])[0].id == EXAMPLES[3].id
    most = max(batch.mask.sum(axis=1).max() for batch in eval_batches(EXAMPLES, CONFIG))
    longest = max(one.length for one in EXAMPLES)
    assert row_bounds(store, CONFIG) == row_bounds(EXAMPLES, CONFIG)
    rows = [row for batch in eval_batches(EXAMPLES, CONFIG) for row in batch.segments]
    documents = max(len(set(row[row > 0].tolist())) for row in rows)
    assert row_bounds(EXAMPLES, CONFIG) == RowBounds(most, RowLimits(longest, 0, documents))


def test_a_store_lays_the_prefixes_of_its_list_and_looks_for_them_once(tmp_path, monkeypatch):
    monkeypatch.setattr("hen_jax.data.stores.READ_AT_ONCE", 7)
    listed = opened(20, EXAMPLES[:20]) + opened(17, EXAMPLES[20:])
    store = write_store(encoded(listed), tmp_path / "store")
    for batches in (train_batches, eval_batches):
        made = take(8, batches(store, SHARING))
        assert_same(made, take(8, batches(listed, SHARING)))
        laid = np.concatenate([(batch.segments == SHARED).sum(axis=1) for batch in made])
        assert set(laid.tolist()) - {0} == {17, 20}
    bounds = row_bounds(store, SHARING)
    assert bounds == row_bounds(listed, SHARING)
    rows = np.concatenate([batch.segments for batch in eval_batches(listed, SHARING)])
    own = max(np.bincount(row[row > 0]).max(initial=0) for row in rows)
    documents = max(len(set(row[row > 0].tolist())) for row in rows)
    assert bounds.reach == RowLimits(own, (rows == SHARED).sum(axis=1).max(), documents)
    assert batches_per_epoch(store, SHARING) == batches_per_epoch(listed, SHARING)
    unread = dataclasses.replace(open_store(tmp_path / "store"), read=pytest.fail)
    for row_length in (48, 64):
        assert set(rows_of(unread, row_length, "shared_prefix").prefix.tolist()) == {17, 20}


def test_a_set_without_a_common_opening_is_packed_as_ever():
    plain = dataclasses.replace(SHARING, packing="fewest_rows")
    assert_same(take(9, train_batches(EXAMPLES, SHARING)), take(9, train_batches(EXAMPLES, plain)))


def test_each_set_of_a_mixture_lays_its_own_opening():
    sets = (opened(17, EXAMPLES[:6]), opened(20, EXAMPLES[6:]))
    mixture = Mixture(tuple(map(in_memory, sets)), (1, 3))
    batches = take(6, train_batches(mixture, SHARING))
    lengths = [(batch.segments == SHARED).sum(axis=1) for batch in batches]
    assert set(np.concatenate(lengths).tolist()) == {17, 20}
    for number, batch in enumerate(batches):
        own = batch.tokens[(batch.segments > 0) & (batch.tokens < PREFIX)]
        assert set(train_records(mixture, SHARING, number)) == {f"例 {token}" for token in own}
    evaluated = list(eval_batches(mixture, SHARING))
    trained = sum(made.mask[1:].sum() for one in sets for made in one)
    assert sum(batch.mask.sum() for batch in evaluated) == trained
    halves = [
        list(eval_batches(mixture, SHARING, process_index=p, process_count=2)) for p in (0, 1)
    ]
    joined = [np.concatenate([a.tokens, b.tokens]).tolist() for a, b in zip(*halves, strict=True)]
    assert joined == tokens(evaluated)


def test_a_large_set_is_packed_in_windows_and_loses_nothing(monkeypatch):
    monkeypatch.setattr("hen_jax.data.packing.WINDOW", 7)
    lengths = np.array([example.length for example in EXAMPLES])
    rows = pack_all(lengths, 16)
    assert sorted(item for row in rows for item in row) == list(range(39))
    assert all(0 < lengths[row].sum() <= 16 for row in rows)
    one_row = PipelineConfig(row_length=16, batch_size=1)
    epoch = take(len(rows), train_batches(EXAMPLES, one_row))
    assert sum(batch.mask.sum() for batch in epoch) == sum(e.mask[1:].sum() for e in EXAMPLES)


@settings(deadline=None, max_examples=12)
@given(stop=st.integers(0, 14), window=st.integers(3, 60), processes=st.sampled_from([1, 2, 4]))
def test_a_store_resumes_at_any_batch_on_any_number_of_processes(
    tmp_path_factory, stop, window, processes
):
    folder = tmp_path_factory.getbasetemp() / f"resumed-{window}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hen_jax.data.packing.WINDOW", window)
        store = open_store(folder) if folder.exists() else write_store(encoded(EXAMPLES), folder)
        whole = take(16, train_batches(store, CONFIG))
    interrupted = train_batches(store, CONFIG)
    take(stop, interrupted)
    saved = json.loads(json.dumps(interrupted.get_state()))
    parts = []
    for process in range(processes):
        resumed = train_batches(store, CONFIG, process_index=process, process_count=processes)
        resumed.set_state(saved)
        parts.append(take(16 - stop, resumed))
    for batch, *shares in zip(whole[stop:], *parts, strict=True):
        for field in range(5):
            joined = np.concatenate([share[field] for share in shares])
            np.testing.assert_array_equal(joined, batch[field])


def test_two_workers_give_the_batches_of_none_and_their_place_is_the_same(tmp_path):
    """A run may go on with another number of workers: the state is the number of the batch."""
    stores = (write_store(encoded(EXAMPLES), tmp_path / "store"), in_memory(EXAMPLES[:6]))
    mixture = Mixture(stores, (3.0, 1.0))
    whole = take(12, train_batches(mixture, CONFIG))
    stream = train_batches(mixture, dataclasses.replace(CONFIG, workers=2))
    stream.set_state({"next_index": 2})
    assert tokens(take(7, stream)) == tokens(whole[2:9])
    alone = train_batches(mixture, CONFIG)
    alone.set_state(stream.get_state())
    assert tokens(take(3, alone)) == tokens(whole[9:])


def test_bad_stores_are_refused(tmp_path):
    empty = write_store([], tmp_path / "empty")
    with pytest.raises(InputError, match="no example"):
        train_batches(empty, CONFIG)


def test_a_mixture_keeps_its_weights_and_resumes():
    mixture = Mixture((in_memory(EXAMPLES[:6]), in_memory(EXAMPLES[6:])), (1, 3))
    stream = train_batches(mixture, CONFIG)
    batches = take(12, stream)
    rows = np.concatenate([batch.tokens[:, 0] for batch in batches])
    assert int((rows <= 6).sum()) == 12  # a quarter of 48
    resumed = train_batches(mixture, CONFIG)
    resumed.set_state(json.loads(json.dumps(stream.get_state())))
    assert tokens(take(3, resumed)) == tokens(take(3, stream))
    for number, batch in enumerate(batches[:3]):
        seen = {f"例 {token}" for token in batch.tokens[batch.segments > 0].tolist()}
        assert set(train_records(mixture, CONFIG, number)) == seen
    evaluated = list(eval_batches(mixture, CONFIG))
    assert sum(b.mask.sum() for b in evaluated) == sum(e.mask[1:].sum() for e in EXAMPLES)
    with pytest.raises(InputError, match="a positive weight"):
        Mixture(mixture.stores, (1, 0))


def document(name: str, reply: str) -> Document:
    return Document(name, name, Conversation((Message("user", "Hi"), Message("assistant", reply))))


def test_a_cache_gives_what_encoding_gives_and_is_never_stale(tmp_path):
    words = ChatTokenizer(tiny_tokenizer(), CHATML)
    config = PipelineConfig(row_length=32)
    documents = [document("a", "Yes."), document("b", "No " * 40), document("c", "嗯。")]
    direct = encode(documents, words, max_length=32)
    key = cache_key(config, "these", words)
    cached(tmp_path, key, lambda: encode_parts(documents, words, max_length=32))
    store = cached(tmp_path, key, pytest.fail)  # from here on it must be read
    for ours, theirs in zip(store.read([0, 1]), direct.examples, strict=True):
        assert (ours.id, ours.group) == (theirs.id, theirs.group)
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
    assert store.summary == direct.summary()
    other = tiny_tokenizer()
    other.add_tokens(["new"])
    keys = {
        key,
        cache_key(config, "others", words),
        cache_key(config, "these", ChatTokenizer(other, CHATML)),
        cache_key(config, "these", ChatTokenizer(words[0], detect_format(words[0]))),
        cache_key(PipelineConfig(row_length=33), "these", words),
        cache_key(PipelineConfig(row_length=32, overlong="drop"), "these", words),
    }
    assert len(keys) == 6
    assert cache_key(PipelineConfig(row_length=32, batch_size=2), "these", words) == key


def test_the_fingerprint_of_a_file_is_that_of_its_content(tmp_path):
    (tmp_path / "a").write_text("one")
    before, folder = file_fingerprint(tmp_path / "a"), file_fingerprint(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert file_fingerprint(tmp_path / "b") == before
    assert file_fingerprint(tmp_path) != folder  # a folder's files are told apart by their names
    (tmp_path / "b").write_text("two")
    assert file_fingerprint(tmp_path / "b") != before

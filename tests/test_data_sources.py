"""From config.sources to examples: cached or not, weighted or not, the same documents."""

import dataclasses
import itertools

import numpy as np
import pytest
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.data.examples import encode
from hen_jax.data.pipeline import PipelineConfig, eval_batches, train_batches
from hen_jax.data.stores import Store
from hen_jax.runs import sources
from hen_jax.runs.sources import Source, documents, prepared
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer

TOKENIZER = tiny_tokenizer()
WORDS = ChatTokenizer(TOKENIZER, detect_format(TOKENIZER))
CONFIG = PipelineConfig(row_length=512, batch_size=4)
HED = Source("hed", "shipped:hed/hed.en.jsonl")
DISTRESS = Source("steered", "shipped:eea/distress.jsonl")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "examples"


def contents(store: Store) -> list[tuple]:
    return [
        (made.id, made.group, made.tokens.tolist(), made.mask.tolist())
        for made in store.read(range(len(store)))
    ]


def test_the_cache_changes_nothing_and_is_read_the_second_time(cache, monkeypatch, capsys):
    first = prepared((HED, DISTRESS), CONFIG, WORDS)
    said = capsys.readouterr().out
    plain = prepared((HED, DISTRESS), dataclasses.replace(CONFIG, cache=False), WORDS)
    assert capsys.readouterr().out == said
    assert len(list(cache.iterdir())) == 2  # train and valid
    monkeypatch.setattr(sources, "encode_parts", pytest.fail)
    again = prepared((HED, DISTRESS), CONFIG, WORDS)
    found = documents((HED, DISTRESS))
    for part, *mixtures in zip((found.train, found.valid), first, plain, again, strict=True):
        direct = encode(part, WORDS, max_length=512).examples
        expected = [(e.id, e.group, e.tokens.tolist(), e.mask.tolist()) for e in direct]
        for mixture in mixtures:
            (store,) = mixture.stores
            assert contents(store) == expected
    assert said.startswith(f"train: {len(found.train)} examples, 8 of them without")


def test_no_text_of_a_document_is_in_another_part():
    train, valid = prepared((HED, DISTRESS), CONFIG, WORDS)
    groups = [{row[1] for row in contents(part.stores[0])} for part in (train, valid)]
    assert groups[0].isdisjoint(groups[1])


def test_weights_make_sets_of_their_own_and_a_run_resumes_in_their_mixture():
    weighted = tuple(dataclasses.replace(one, weight=w) for one, w in ((HED, 1.0), (DISTRESS, 3.0)))
    train, valid = prepared(weighted, CONFIG, WORDS)
    assert train.weights == (1.0, 3.0)
    distress = {row[0] for row in contents(train.stores[1])}
    assert distress == {d.id for d in documents((DISTRESS,)).train}
    assert len(valid.stores) == 1  # held-out examples count once each
    assert sum(b.mask.sum() for b in eval_batches(valid, CONFIG)) == valid.stores[0].trained.sum()
    stream = train_batches(train, CONFIG)
    whole = list(itertools.islice(stream, 8))
    resumed = train_batches(prepared(weighted, CONFIG, WORDS).train, CONFIG)
    resumed.set_state({"next_index": 5})
    for ours, theirs in zip(whole[5:], resumed, strict=False):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)


def test_bad_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"1 of 2 config\.sources have a weight; give it to all"):
        prepared((HED, dataclasses.replace(DISTRESS, weight=1.0)), CONFIG, WORDS)
    with pytest.raises(InputError, match=r"config\.sources is empty"):
        prepared((), CONFIG, WORDS)
    with pytest.raises(InputError, match=r"weight is 0\.0; allowed: more than 0"):
        prepared((dataclasses.replace(HED, weight=0.0),), CONFIG, WORDS)
    (tmp_path / "bad.jsonl").write_text('{"messages": 5}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl:1:messages: .*`hen data validate` lists all"):
        prepared((Source("messages", str(tmp_path / "bad.jsonl")),), CONFIG, WORDS)

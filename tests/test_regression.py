"""Ratings: targets and marks, the loss, the scores of a predictor and its controls."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import CONFIG
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.rated import RatedDocument, rated_sense7, replies_only
from hen_jax.data.rated_batches import (
    Marked,
    RatedConfig,
    bounds_of_rows,
    eval_rated,
    mark,
    pack_rated,
    rated_batch,
    rated_ids,
    train_rated,
)
from hen_jax.data.rating_words import length_ratings, word_ratings
from hen_jax.data.sense7 import RatedConversation, RatedTurn, ground_truth, read_sense7
from hen_jax.empathy.patterns import DIMENSIONS
from hen_jax.evaluation.regression import HeldRatings, regression_report, regression_scores
from hen_jax.models.config import DIMENSION_LABELS, RATING_LABELS
from hen_jax.models.decoder import Decoder, split
from hen_jax.models.families.table import from_hf, to_hf
from hen_jax.objectives.regression import rating_loss
from hen_jax.recipes.regression_report import by_conversation, dimension_scores
from hen_jax.runs.rated import Folds
from hen_jax.steps.regression import rating_logits
from hen_jax.text.chat import render
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer

NONE = math.nan


@pytest.fixture(scope="module")
def words():
    tokenizer = tiny_tokenizer()
    return ChatTokenizer(tokenizer, detect_format(tokenizer))


def turn(role: str, text: str, **ratings: float) -> RatedTurn:
    return RatedTurn(Message(role, text), ratings, retry=False)


def conversation(*turns: RatedTurn) -> RatedConversation:
    return RatedConversation("c", "p", "m", "t", None, None, None, {}, {}, turns)


UNBALANCED = conversation(
    turn("user", "Hi."),
    turn("assistant", "Hello.", Affective=5),
    turn("user", "Hm."),
    turn("assistant", "Yes.", Affective=1, Cognitive=2),
    turn("assistant", "Not rated."),
)


def rated(record: RatedConversation) -> RatedDocument:
    found = rated_sense7(record)
    assert found is not None
    return found


def test_ground_truth_is_turn_first_in_the_unit_interval():
    assert ground_truth(UNBALANCED) == 3.25
    found = rated(UNBALANCED)
    assert found.level.overall == (3.25 - 1) / 4  # pooled, it would be (8/3 - 1) / 4
    assert found.level.dimensions == {"Affective": 0.5, "Cognitive": 0.25}
    assert {at: one.overall for at, one in found.replies.items()} == {1: 1.0, 3: 0.125}
    assert rated_sense7(conversation(turn("user", "Hi."), turn("assistant", "Yes."))) is None


def test_marks_are_the_ends_of_a_conversation_and_of_its_rated_replies(words):
    found = rated(UNBALANCED)
    said = found.document.conversation
    whole = mark(found, render(said, words), RATING_LABELS, "conversation")
    assert whole.marks.tolist() == [len(whole.tokens) - 1]
    assert whole.targets.tolist() == [[0.5625]]
    turns = mark(found, render(said, words), DIMENSION_LABELS, "turn")
    assert turns.marks.tolist() == [
        len(render(Conversation(said.messages[:end]), words).tokens) - 1 for end in (2, 4)
    ]
    np.testing.assert_array_equal(turns.targets[:, :3], [[1, NONE, NONE], [0, 0.25, NONE]])


def test_replies_alone_keep_their_places_and_nothing_of_the_user():
    said = UNBALANCED.document().conversation
    hidden = replies_only(said)
    assert [one.role for one in hidden.messages] == [one.role for one in said.messages]
    assert {one.content for one in hidden.messages} == {"...", "Hello.", "Yes.", "Not rated."}


def marked(name: str, length: int, marks: list[int], seed: int, outputs: int = 1) -> Marked:
    random = np.random.default_rng(seed)
    targets = random.uniform(size=(len(marks), outputs)).astype(np.float32)
    tokens = random.integers(0, 61, length).astype(np.int32)
    return Marked(name, name, tokens, np.asarray(marks, np.int32), targets)


DOCUMENTS = [marked("a", 9, [3, 8], 1), marked("b", 5, [4], 2), marked("c", 14, [13], 3)]
PARTS = split(Decoder(jax.random.key(0), dataclasses.replace(CONFIG, score_head=True)))


def test_a_packed_conversation_is_rated_as_alone_in_its_row():
    config = RatedConfig(row_length=16, batch_size=2)
    rows = pack_rated(DOCUMENTS, config)
    assert sorted(sorted(one.id for one in row) for row in rows) == [["a", "b"], ["c"]]
    bounds = bounds_of_rows(rows, 1)
    assert bounds[:3] == (32, 3, 1)

    @jax.jit
    def rate(batch):
        return rating_logits(PARTS.graphdef, PARTS.base, {}, batch, bounds.reach)

    def logits(rows):
        return np.asarray(rate(rated_batch(rows, bounds)))

    packed = by_conversation(rows, logits([*rows, None, None]))
    alone = [[one] for one in DOCUMENTS]
    apart = by_conversation(alone, logits([*alone, None]))
    for one in DOCUMENTS:
        np.testing.assert_allclose(packed[one.id], apart[one.id], atol=1e-5)
    assert np.std([value[0] for value in packed.values()]) > 1e-3


def test_batches_hold_every_conversation_and_know_their_place():
    config = RatedConfig(row_length=16, batch_size=2, prefetch=0)
    rows = pack_rated(DOCUMENTS * 2, config)
    bounds = bounds_of_rows(rows, 1)
    found = list(eval_rated(rows, config, bounds))
    assert sum(float(batch.known.sum()) for batch in found) == 8
    batches = train_rated(rows, config, bounds)
    first, second = next(batches), next(batches)
    batches.set_state({"next_index": 1})
    np.testing.assert_array_equal(next(batches).targets, second.targets)
    halves = [
        next(train_rated(rows, config, bounds, process_index=at, process_count=2)).targets
        for at in (0, 1)
    ]
    np.testing.assert_array_equal(np.concatenate(halves), first.targets)
    assert set(rated_ids(rows, config, 0)) <= {"a", "b", "c"}


def test_the_loss_is_the_squared_error_of_what_was_rated():
    logits = jnp.asarray([[[0.0, 0.0], [math.log(3), 5.0]], [[0.0, 0.0], [7.0, 7.0]]])
    targets = jnp.asarray([[[1.0, 0.5], [0.25, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    known = jnp.asarray([[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mean, metrics = rating_loss(logits, targets, known)
    # A place of two outputs: (0.25 + 0) / 2; one of which one is known: (0.75 - 0.25)^2.
    assert float(mean.count) == 2
    assert float(mean.total) == pytest.approx(0.125 + 0.25)
    assert float(metrics["mae"].total) == pytest.approx(0.25 + 0.5)
    assert float(metrics["rating"].total) == pytest.approx(0.5 + 0.75)


def test_scores_by_hand_round_half_to_even():
    found = regression_scores(np.array([0, 0.5, 1]), np.array([0.25, 0.5, 0.75]))
    assert found.mse == pytest.approx(1 / 24)
    assert (found.pearson, found.spearman) == (pytest.approx(1), pytest.approx(1))
    assert (found.accuracy, found.within_one) == (pytest.approx(1 / 3), 1.0)
    # 2.5, 3.5 and 4.5 on 1 to 5 are 2, 4 and 4.
    halves = (np.array([2.5, 3.5, 4.5]) - 1) / 4
    assert regression_scores((np.array([2, 4, 4]) - 1) / 4, halves).accuracy == 1.0
    assert math.isnan(regression_scores(np.ones(3), np.arange(3) / 2).pearson)


def test_the_report_has_intervals_by_group_and_the_constant_beside_it():
    random = np.random.default_rng(0)
    truth = random.uniform(size=40)
    held = HeldRatings(truth, [at // 4 for at in range(40)], {"constant": np.full(40, 0.5)})
    good = regression_report(truth + random.normal(0, 0.05, 40), held, draws=200)
    assert good["model"]["mse_ratio"]["high"] < 0.2
    assert good["model"]["spearman"]["groups"] == 10
    assert good["controls"]["constant"]["spearman"] is None
    flat = regression_report(np.full(40, 0.5), held, draws=50)["model"]
    assert flat["mse_ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0, "groups": 10}
    assert flat["pearson"]["low"] is None


def test_words_and_length_are_controls_that_learn():
    warm = ["I hear you, that hurts."] * 6 + ["Noted. Next."] * 6
    truth = np.repeat([0.9, 0.2], 6)
    for rate in (word_ratings, length_ratings):
        high, low = rate(warm, truth, ["That hurts, I hear you.", "Noted."])
        assert high > 0.7 > 0.4 > low
        assert rate(["a"] * 3, truth[:3], ["a"])[0] == pytest.approx(0.9)


def test_dimensions_are_scored_over_the_conversations_that_have_them():
    records = [rated(UNBALANCED), rated(conversation(turn("assistant", "Yes.", Affective=5)))]
    found = dimension_scores(records, np.full((2, 7), 0.5), DIMENSION_LABELS)
    assert found == {
        "Affective": {"mse": 0.125, "spearman": None, "conversations": 2},
        "Cognitive": {"mse": 0.0625, "spearman": None, "conversations": 1},
    }


def test_folds_hold_whole_groups_out_once():
    records = read_sense7(samples.path("sense7/conversations.jsonl"))
    people = {record.participant for record in records}
    parts = [[name for name in people if Folds(5, held).part(name) == "valid"] for held in range(5)]
    assert sorted(name for part in parts for name in part) == sorted(people)
    with pytest.raises(InputError, match="hold out one of them"):
        Folds(3, 3)


@pytest.mark.parametrize("labels", [RATING_LABELS, DIMENSION_LABELS])
def test_what_a_head_says_stands_in_its_config(labels):
    config = dataclasses.replace(CONFIG, score_head=True, score_labels=labels)
    fields = to_hf(config)
    assert list(fields["id2label"].values()) == list(labels)
    assert from_hf(fields) == config
    assert from_hf(fields).rates
    kernel = Decoder(jax.random.key(0), config).score.kernel[...]
    assert kernel.shape == (CONFIG.width, len(labels))


def test_other_classifiers_are_refused():
    fields = to_hf(dataclasses.replace(CONFIG, score_head=True))
    assert not from_hf(fields).rates
    with pytest.raises(InputError, match="the classifier has 2 labels"):
        from_hf(fields | {"id2label": {"0": "bad", "1": "good"}})
    assert len(DIMENSIONS) == 7

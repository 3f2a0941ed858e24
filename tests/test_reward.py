"""Reward models: replies share their prompt's computation and lose nothing by it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.data.comparisons import (
    Compared,
    compared_batch,
    most_replies,
    reach_of,
    render_comparisons,
    turn_pairs,
)
from hen_jax.data.preferences import Pair
from hen_jax.models.decoder import Decoder, split
from hen_jax.steps.reward import RewardConfig, reward_loss, row_of_scores
from hen_jax.steps.state import init_state
from hen_jax.steps.update import update_step
from hen_jax.text.conversation import Message
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer

SCORED = dataclasses.replace(CONFIG, score_head=True)
PARTS = split(Decoder(jax.random.key(0), SCORED))


def item(name: str, prefix: int, own: list[int], seed: int = 0) -> Compared:
    random = np.random.default_rng(seed)
    start = random.integers(0, 61, prefix)
    documents = tuple(np.r_[start, random.integers(0, 61, n)].astype(np.int32) for n in own)
    wins = np.triu(np.ones((len(own), len(own)), np.float32), 1)
    nothing = np.zeros_like(wins)
    return Compared(name, name, "plain", documents, prefix, wins, nothing, nothing)


ITEMS = [item("a", 5, [3, 6], 1), item("b", 9, [2, 2, 4], 2), item("c", 1, [7, 3], 3)]


def pair(prompt: str, chosen: str, rejected: str, name: str = "x") -> Pair:
    said = (Message("user", prompt),)
    replies = (Message("assistant", text) for text in (chosen, rejected))
    return Pair(name, name, said, *((reply,) for reply in replies))


@pytest.fixture(scope="module")
def words():
    tokenizer = tiny_tokenizer()
    return ChatTokenizer(tokenizer, detect_format(tokenizer))


def scores_of(items, row_length=32, replies=3):
    batch = jax.tree.map(jnp.asarray, compared_batch(items, row_length, replies))
    return row_of_scores(PARTS.graphdef, replies, PARTS.base, {}, batch, reach_of(ITEMS))


def test_a_reply_scores_as_alone_in_its_row():
    together = scores_of(ITEMS)
    for one, row in zip(ITEMS, together, strict=True):
        for document, score in zip(one.documents, row, strict=False):
            alone = Compared("", "", "", (document,), 0, *np.zeros((3, 1, 1), np.float32))
            batch = jax.tree.map(jnp.asarray, compared_batch([alone], 32, 1))
            expected = row_of_scores(PARTS.graphdef, 1, PARTS.base, {}, batch)[0, 0]
            assert float(score) == pytest.approx(float(expected), abs=1e-5)
    assert together[0, 2] == 0  # the first item has two replies


def test_the_score_is_of_the_last_token_whatever_it_is():
    """Also where the last token is the stop token, and where it differs from the others."""
    changed = dataclasses.replace(
        ITEMS[0], documents=(ITEMS[0].documents[0], np.r_[ITEMS[0].documents[1][:-1], 7])
    )
    assert scores_of([ITEMS[0]])[0, 0] == pytest.approx(float(scores_of([changed])[0, 0]), abs=1e-6)
    assert abs(float(scores_of([ITEMS[0]])[0, 1] - scores_of([changed])[0, 1])) > 1e-4


def test_equal_scores_lose_ln_2_and_padding_rows_count_for_nothing():
    flat = jax.tree.map(jnp.asarray, PARTS.base)
    flat["score"]["kernel"] = jnp.zeros_like(flat["score"]["kernel"])
    loss = reward_loss(PARTS.graphdef, 3, RewardConfig(centring=0.0))
    batch = jax.tree.map(jnp.asarray, compared_batch([*ITEMS, None], 32, 3))
    mean, metrics = loss(flat, {}, batch)
    assert float(mean.total / mean.count) == pytest.approx(math.log(2), rel=1e-6)
    assert float(mean.count) == 3
    assert float(metrics["accuracy"].total / metrics["accuracy"].count) == 0.5


def test_training_orders_the_replies_and_microbatches_change_nothing():
    optimizer = optax.adam(1e-2)
    batch = jax.tree.map(jnp.asarray, compared_batch([*ITEMS, None], 32, 3))
    loss = reward_loss(PARTS.graphdef, 3)
    states = []
    for microbatches in (1, 2):
        step = jax.jit(update_step(loss, optimizer, microbatches))
        state, found = init_state(PARTS.base, optimizer, 0), []
        for _ in range(3 if microbatches == 2 else 12):
            state, metrics = step(state, {}, batch)
            found.append(float(metrics["loss"].total / metrics["loss"].count))
        states.append(found)
    np.testing.assert_allclose(states[0][:3], states[1], rtol=1e-4)
    assert states[0][-1] < 0.5 * states[0][0]


def test_more_documents_than_compiled_for_are_not_left_out():
    batch = jax.tree.map(jnp.asarray, compared_batch([ITEMS[1]], 32, 3))
    scores = row_of_scores(PARTS.graphdef, 2, PARTS.base, {}, batch)
    assert np.isnan(scores).all()
    with pytest.raises(InputError, match="record b: more than 2 replies"):
        compared_batch([ITEMS[1]], 32, 2)


def test_replies_to_one_prompt_come_together(words):
    pairs = [
        pair("Hi there.", "Come in.", "Go away."),
        pair("Hi there.", "Come in.", "What?"),
        pair("Hello.", "Well then.", "No."),
    ]
    taken = render_comparisons(pairs, words, row_length=256)
    first, second = taken.compared
    assert len(first.documents) == 3
    assert first.wins.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert second.wins.tolist() == [[0, 1], [0, 0]]
    assert most_replies(taken.compared) == 3
    for one in taken.compared:
        prompts = {tuple(document[: one.prefix]) for document in one.documents}
        assert len(prompts) == 1


def test_shares_ties_and_margins_reach_the_loss(words):
    """0.6 for the first, 0.3 for neither; the lead that is asked for is the first's."""
    soft = dataclasses.replace(
        pair("Hi there.", "Come in.", "Go away."), share=0.6, tie=0.3, margin=0.5
    )
    known = render_comparisons([soft], words, row_length=256).compared[0]
    np.testing.assert_allclose(known.wins, [[0, 0.6], [0.1, 0]], atol=1e-6)
    np.testing.assert_allclose(known.ties, [[0, 0.3], [0.3, 0]], atol=1e-6)
    np.testing.assert_allclose(known.margin, [[0, 0.5], [-0.5, 0]])
    judged = dataclasses.replace(ITEMS[0], wins=known.wins, ties=known.ties, margin=known.margin)
    batch = jax.tree.map(jnp.asarray, compared_batch([judged], 32, 3))
    config = RewardConfig(beta=0.5, margin=0.2, centring=0.0)
    mean, _ = reward_loss(PARTS.graphdef, 3, config)(PARTS.base, {}, batch)
    first, second = np.asarray(scores_of([judged]))[0, :2]
    d = (first - second) / 0.5 - 0.7
    expected = 0.75 * np.log1p(np.exp(-d)) + 0.25 * np.log1p(np.exp(d))
    assert float(mean.total) == pytest.approx(expected, rel=1e-4)


def test_what_reads_replies_alone_sees_nothing_of_the_prompt(words):
    pairs = [
        pair("Hi there.", "Come in.", "Go away.", "a"),
        pair("No?", "Go away.", "Come in.", "b"),
    ]
    first, second = render_comparisons(pairs, words, row_length=256, reads="replies").compared
    assert (first.id, second.id) == ("a", "b")  # still two prompts, each with its comparison
    for one, other in zip(first.documents, second.documents[::-1], strict=True):
        np.testing.assert_array_equal(one, other)
    read = render_comparisons(pairs, words, row_length=256).compared
    assert len(read[0].documents[0]) != len(read[1].documents[1])


def test_both_sides_end_in_the_same_token(words):
    (one,) = render_comparisons(
        [pair("Hi.", "Short.", "A longer reply, with more.")], words, row_length=256
    ).compared
    ends = {tuple(document[-2:].tolist()) for document in one.documents}
    assert len(ends) == 1


def test_what_does_not_fit_is_named_and_not_cut(words):
    pairs = [pair("Hi.", "Yes.", "No.", "kept"), pair("Hi " * 200, "Yes.", "No.", "long")]
    taken = render_comparisons(pairs, words, row_length=64)
    assert [one.id for one in taken.compared] == ["kept"]
    assert taken.dropped == ("long",)


def test_a_pair_of_conversations_becomes_a_pair_a_turn():
    def said(*texts):
        roles = ("assistant", "user") * 2
        return tuple(map(Message, roles, texts))

    one = Pair("c", "c", (Message("user", "u1"),), said("a1", "u2", "a2"), said("b1", "u2", "a2"))
    (first,) = turn_pairs(one)  # the second turn is the same in both
    assert (first.id, first.chosen[0].content, first.rejected[0].content) == ("c#1", "a1", "b1")
    both = dataclasses.replace(one, rejected=said("b1", "u2", "b2"))
    second = turn_pairs(both)[1]
    assert second.id == "c#2"
    assert [message.content for message in second.prompt] == ["u1", "a1", "u2"]
    with pytest.raises(InputError, match="record c: the branches differ"):
        turn_pairs(dataclasses.replace(one, rejected=said("b1", "other", "b2")))


@pytest.mark.parametrize(
    ("field", "value"), [("beta", 0.0), ("margin", -1.0), ("centring", math.nan)]
)
def test_objectives_out_of_range_are_named(field, value):
    with pytest.raises(InputError, match=field):
        RewardConfig(**{field: value})

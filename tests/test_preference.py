"""Preference rows and steps: a shared prompt, microbatches and other replies change no number."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, LORA, stirred
from tiny_tokenizer import tiny_tokenizer

from hen_jax.core.errors import InputError
from hen_jax.core.trees import flatten
from hen_jax.data.comparison_batches import ComparisonConfig, Comparisons
from hen_jax.data.continuations import continuations
from hen_jax.data.preference_batches import (
    PreferenceBounds,
    mismatched,
    preference_batch,
    preference_bounds,
    train_preferences,
)
from hen_jax.data.preferences import Labelled, Pair, parse_pair
from hen_jax.models.decoder import Decoder, split
from hen_jax.steps.preference import (
    BASE,
    REFERENCE,
    PreferencePlan,
    completed,
    preference_loss,
    preference_score,
    preference_step,
)
from hen_jax.steps.preference_config import PreferenceConfig
from hen_jax.steps.reply_scores import reply_lengths, reply_sums, whole
from hen_jax.steps.state import init_state
from hen_jax.steps.update import update_step
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.detect import detect_format
from hen_jax.text.tokenizer import ChatTokenizer

WIDE = dataclasses.replace(CONFIG, vocab_size=2000, max_length=512)
PARTS = split(Decoder(jax.random.key(0), WIDE, LORA))
POLICY, START = stirred(PARTS.adapter, 1), stirred(PARTS.adapter, 2)


def said(*texts: str) -> tuple[Message, ...]:
    return tuple(map(Message, ("assistant", "user") * 3, texts))


def pair(name: str, prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(name, name, (Message("user", prompt),), said(chosen), said(rejected))


PAIRS = [
    pair("a", "I failed my exam today.", "That hurts.", "Study more next time, then."),
    pair("a2", "I failed my exam today.", "That hurts.", "So what?"),
    pair("b", "We won!", "So glad for you, well done, all of you!", "So what?"),
    pair("c", "My cat is ill, and I am worried.", "Poor thing.", "Cats get ill."),
    pair("d", "Good morning to you.", "Good morning! Slept well?", "Good."),
]


@pytest.fixture(scope="module")
def words():
    tokenizer = tiny_tokenizer()
    return ChatTokenizer(tokenizer, detect_format(tokenizer))


@pytest.fixture(scope="module")
def found(words):
    """The prompts with a prompt once a row, and with one before each reply."""
    return {
        shared: continuations(PAIRS, words, row_length=512, shared=shared).compared
        for shared in (True, False)
    }


def batch_of(rows, *, shared=True, kto=False):
    bounds = preference_bounds(rows, shared=shared, mismatches=kto)
    numbers = {row: number for number, row in enumerate(rows)}
    before = [rows[-1], *rows[:-1]] if kto else None
    laid = preference_batch(rows, before, bounds, numbers, shared=shared)
    return jax.tree.map(jnp.asarray, laid), bounds


def plan_of(bounds: PreferenceBounds, **config) -> PreferencePlan:
    return PreferencePlan(PARTS.graphdef, bounds, PreferenceConfig(**config))


FROZEN = {BASE: PARTS.base, REFERENCE: START}


def value_and_gradient(rows, *, shared=True, **config):
    batch, bounds = batch_of(rows, shared=shared, kto=config.get("loss") == "kto")
    plan = plan_of(bounds, **config)
    score = preference_score(preference_loss(plan), completed(plan))

    @jax.jit
    def run(params):
        def total(params):
            mean, metrics = score(params, FROZEN, batch)
            return mean.total / mean.count, metrics

        return jax.value_and_grad(total, has_aux=True)(params)

    (value, metrics), gradient = run(POLICY)
    return float(value), metrics, gradient


@pytest.mark.parametrize(
    "config", [{"loss": "ld_dpo", "sft": 0.5}, {"loss": "kto"}], ids=lambda one: one["loss"]
)
def test_a_shared_prompt_changes_neither_loss_nor_gradient(found, config):
    together, apart = (
        value_and_gradient(found[shared], shared=shared, **config) for shared in (True, False)
    )
    assert together[0] == pytest.approx(apart[0], abs=1e-5)
    for name, leaf in flatten(together[2]).items():
        np.testing.assert_allclose(leaf, flatten(apart[2])[name], atol=1e-5, err_msg=name)
    assert max(float(abs(leaf).max()) for leaf in jax.tree.leaves(together[2])) > 1e-3


def test_prompts_are_laid_once_and_nothing_in_them_trains(found):
    batch, bounds = batch_of(found[True])
    assert bounds.rows.replies == 3  # to the first prompt, which two pairs compare
    rows = batch.rows
    assert not (rows.weights * (rows.batch.segments <= 0)).any()
    apart, _ = batch_of(found[False], shared=False)
    lengths = [reply_lengths(one.rows, 3) for one in (batch, apart)]
    np.testing.assert_array_equal(*lengths)
    assert (rows.batch.segments != 0).sum() < 0.7 * (apart.rows.batch.segments != 0).sum()


def test_replies_that_begin_alike_count_from_their_first_token(words):
    """The common tokens of two replies are no prompt: in a sum over tokens they count."""
    (one,) = continuations(
        [pair("x", "Hi.", "Good morning to you.", "Good morning to them all.")],
        words,
        row_length=99,
    ).compared
    whole = render_all(
        [
            Conversation((Message("user", "Hi."), m))
            for m in (*said("Good morning to you."), *said("Good morning to them all."))
        ],
        words,
    )
    assert [int(weight.sum()) for weight in one.weights] == [int(r.mask.sum()) for r in whole]


def test_a_change_in_one_reply_leaves_the_others_terms_bit_equal(found):
    """Of another prompt, and of the same."""
    batch, bounds = batch_of(found[True])
    plan = plan_of(bounds)
    one = jax.jit(partial(_sums, plan))
    before = one(batch)
    rows = batch.rows
    third = (rows.batch.segments == 3) & (jnp.arange(len(rows.batch.tokens))[:, None] == 0)
    tokens = jnp.where(third, (rows.batch.tokens + 1) % 2000, rows.batch.tokens)
    after = one(batch._replace(rows=rows._replace(batch=rows.batch._replace(tokens=tokens))))
    changed = np.zeros((4, 3), bool)
    changed[0, 2] = True
    assert (np.asarray(before != after) == changed).all()


def _sums(plan, batch):
    return whole(reply_sums(plan.scoring, plan.bounds.rows, batch.rows, POLICY, PARTS.base))


@pytest.mark.slow
def test_microbatches_change_nothing(found):
    """z0 and the tokens that a cross-entropy is divided by are of the whole batch."""
    batch, bounds = batch_of(found[True], kto=True)
    plan, optimizer = plan_of(bounds, loss="kto", sft=0.3), optax.sgd(0.1)
    states = []
    for parts in (1, 4):
        update = update_step(preference_loss(plan), optimizer, parts)
        step = jax.jit(preference_step(update, completed(plan, parts)))
        state, metrics = step(init_state(POLICY, optimizer, 0), FROZEN, batch)
        states.append((state.params, {k: float(m.value) for k, m in metrics.items()}))
    for name, leaf in flatten(states[0][0]).items():
        np.testing.assert_allclose(leaf, flatten(states[1][0])[name], atol=2e-6, err_msg=name)
    assert states[0][1] == pytest.approx(states[1][1], rel=1e-4)
    assert states[0][1]["z0"] > 1e-3


def test_mismatched_replies_are_the_batches_own_behind_other_prompts(found, words):
    rows = found[True]
    one = mismatched(rows[0], rows[1])
    prompt, reply = PAIRS[0].prompt, PAIRS[2].rejected
    (expected,) = render_all([Conversation((*prompt, *reply))], words)
    last = int(np.flatnonzero(expected.mask)[-1])
    k = list(map(len, one.documents)).index(last)
    np.testing.assert_array_equal(one.documents[k], expected.tokens[:last])
    np.testing.assert_array_equal(one.targets[k], expected.tokens[1 : last + 1])
    np.testing.assert_array_equal(one.weights[k] > 0, expected.mask[1 : last + 1])
    batch, bounds = batch_of(rows, kto=True)
    assert batch.mismatched is not None
    assert bounds.mismatched is not None
    own = reply_lengths(batch.rows, bounds.rows.replies)
    there = reply_lengths(batch.mismatched, bounds.rows.replies)
    np.testing.assert_array_equal(there, jnp.roll(own, 1, axis=0))


def test_processes_load_the_rows_and_mismatches_of_one(found):
    rows = found[True]
    bounds = preference_bounds(rows, shared=True, mismatches=True)
    config = ComparisonConfig(row_length=512, batch_size=4, prefetch=0)
    numbers = {row: number for number, row in enumerate(rows)}

    def loaded(**share):
        return next(train_preferences(Comparisons((rows,)), config, bounds, numbers, **share))

    halves = [loaded(process_index=index, process_count=2) for index in (0, 1)]
    both = jax.tree.map(lambda *parts: np.concatenate(parts), *halves)
    jax.tree.map(np.testing.assert_array_equal, both, loaded())
    assert sorted(both.number.tolist()) == [0, 1, 2, 3]


def test_turns_that_differ_count_by_their_weights(words):
    """The first turn is the same, and computed once; the second and third count 0.5 and 2."""
    prompt = (Message("user", "u"),)
    chosen = said("Same words.", "v", "Yes.", "w", "Good.")
    rejected = said("Same words.", "v", "No, never.", "w", "Bad.")
    one = Pair("t", "t", prompt, chosen, rejected, turn_weights=(1.0, 1.0, 8.0))
    (found,) = continuations([one], words, row_length=512, discount=0.5).compared
    for weights in found.weights:
        assert set(np.unique(weights)) == {0.0, 0.5, 2.0}
    (whole,) = render_all([Conversation((*prompt, *chosen[:2]))], words)
    assert found.prefix > len(whole.tokens)  # up to the header of the second reply
    twice = dataclasses.replace(one, rejected=said("Same words.", "v", "No, never.", "w", "Good."))
    (found,) = continuations([twice], words, row_length=512).compared
    assert [len(np.unique(weights)) for weights in found.weights] == [2, 2]  # the last is the same
    spoken = [int((w > 0).sum()) for w in found.weights]
    assert spoken[0] < spoken[1]


def test_what_leaves_nothing_to_train_is_told(words):
    grown = Pair("g", "g", (Message("user", "u"),), said("Yes."), said("Yes.", "v", "And more."))
    long = pair("l", "Hi " * 200, "Yes.", "No.")
    taken = continuations([*PAIRS, grown, long], words, row_length=128)
    assert taken.silent == ("g",)
    assert taken.dropped == ("l",)
    assert all((weight > 0).any() for row in taken.compared for weight in row.weights)


def test_labels_and_pairs_of_a_prompt_come_together(words):
    asked = PAIRS[0].prompt
    labelled = [
        Labelled("x", "x", Conversation((*asked, *said("Oh no."))), True),
        Labelled("y", "y", Conversation((*asked, *said("That hurts."))), False),
    ]
    one, *rest = continuations([*PAIRS, *labelled], words, row_length=512).compared
    assert len(rest) == 3
    assert one.marks is not None
    assert one.marks.tolist() == [[2, 1], [0, 1], [0, 1], [1, 0]]
    with pytest.raises(InputError, match="record z: a label is for a reply"):
        continuations([Labelled("z", "z", Conversation(asked), True)], words, row_length=512)


def test_turn_weights_are_read_and_counted():
    row = {"id": "1", "prompt": "Hi.", "chosen": "Yes.", "rejected": "No.", "turn_weights": [0.5]}
    assert parse_pair(row).turn_weights == (0.5,)
    with pytest.raises(InputError, match=r"turn_weights: .* a list of 1, one per reply"):
        parse_pair(row | {"turn_weights": [1, 2]})

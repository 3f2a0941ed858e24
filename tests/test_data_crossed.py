"""Crossed items: each reply is right under one condition and wrong under the other."""

import dataclasses
from collections import Counter

import pytest

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.crossed import (
    CROSSINGS,
    Crossing,
    crossed_pairs,
    parse_crossed,
    personality_crossings,
    require_crossed,
    role_crossings,
    statement_crossings,
    turn_crossings,
    within,
)
from hen_jax.data.schemas import read_documents, read_pairs, read_records
from hen_jax.empathy.labels import LANGUAGES
from hen_jax.text.conversation import Message

ROW = {
    "id": "cross-role-en-101",
    "crossing": "role",
    "lang": "en",
    "context": "distress",
    "history": [[], []],
    "user": "I called in sick.",
    "conditions": [{"role": "parent"}, {"role": "colleague"}],
    "replies": ["Come home, then.", "I'll take the nine o'clock."],
}


@pytest.fixture(scope="module")
def shipped() -> dict[tuple[str, str], list[Crossing]]:
    return {
        (kind, language): read_records(samples.path(f"crossed/{kind}.{language}.jsonl"), "crossed")
        for kind in CROSSINGS
        for language in LANGUAGES
    }


@pytest.fixture(scope="module")
def hed() -> list:
    return read_records(samples.path("hed/hed.en.jsonl"), "hed")


def test_shipped_items_are_whole_and_of_two_hands(shipped):
    sizes = {key: len(items) for key, items in shipped.items()}
    assert sizes == {
        (k, lang): {"en": 110, "zh": 80}[lang] for k in CROSSINGS for lang in LANGUAGES
    }
    hands = Counter(item.hand for item in shipped["level", "en"])
    assert hands == {1: 60, 2: 50}


def test_each_reply_is_chosen_as_often_as_rejected(shipped):
    for items in shipped.values():
        pairs = [pair for item in items for pair in crossed_pairs(item)]
        require_crossed(pairs)
        chosen, rejected = (Counter(side(pair) for pair in pairs) for side in _SIDES)
        assert chosen == rejected


_SIDES = (lambda pair: pair.chosen, lambda pair: pair.rejected)


def test_both_prompts_end_alike_and_differ_before(shipped):
    for items in shipped.values():
        for item in items:
            first, second = item.prompts
            assert first != second
            assert first[-1] == second[-1]
            assert first[-1].role == "user"


def test_the_condition_is_said_in_the_items_language():
    item = parse_crossed(ROW)
    assert item.prompts[0][0] == Message("system", "You are their parent.")
    assert item.prompts[1][0] == Message("system", "You are their colleague.")
    chinese = parse_crossed(ROW | {"lang": "zh"})
    assert chinese.prompts[0][0].content == "你是对方的父母。"
    level = ROW | {
        "crossing": "level",
        "conditions": [
            {"desired_level": 1, "wish": "wants a figure"},
            {"desired_level": 3, "wish": "wants to be seen"},
        ],
    }
    assert parse_crossed(level).prompts[0][0].content == (
        "Empathy wanted, from 1 to 3: 1. The user wants a figure."
    )


def test_facts_differ_in_the_history_and_give_no_condition(shipped):
    for item in shipped["fact", "en"]:
        assert all(message.role != "system" for prompt in item.prompts for message in prompt)


def test_pairs_are_the_two_directions():
    one, other = crossed_pairs(parse_crossed(ROW))
    assert (one.chosen, one.rejected) == (other.rejected, other.chosen)
    assert one.prompt != other.prompt
    assert one.group == other.group == "cross-role-en-101"
    assert (one.id, other.id) == ("cross-role-en-101/1", "cross-role-en-101/2")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"crossing": "mood"}, "crossing: 'mood'"),
        ({"replies": ["same", "same"]}, "replies: both are the same"),
        ({"replies": ["one"]}, "replies: "),
        ({"replies": ["one", ""]}, "replies\\[1\\]: empty"),
        (
            {"conditions": [{"role": "parent"}, {"role": "parent"}]},
            "conditions: both give the same",
        ),
        ({"conditions": [{"role": "parent"}, {"role": "boss"}]}, "conditions\\[1\\].role: 'boss'"),
        (
            {"conditions": [{"role": "parent"}, {"emotion": "sad"}]},
            "conditions\\[1\\].role: missing",
        ),
        ({"history": [[], [{"role": "narrator", "content": "x"}]]}, "history\\[1\\]\\[0\\].role"),
        ({"more": 1}, "more: unknown key"),
    ],
)
def test_bad_items_are_named(change, named):
    with pytest.raises(InputError, match=named):
        parse_crossed(ROW | change)


def test_hed_crossings_count_as_measured(hed):
    """160 role pairs and 160 personality pairs a language, two to a statement."""
    for build in (role_crossings, personality_crossings):
        crossings = build(hed)
        assert len(crossings) == 80
        require_crossed([pair for one in crossings for pair in crossed_pairs(one)])
        for one in crossings:
            assert one.prompts[0][-1] == one.prompts[1][-1]


def test_role_crossings_differ_in_the_role_alone(hed):
    for one in role_crossings(hed):
        words = [set(prompt[0].content.split()) for prompt in one.prompts]
        assert "personality:" not in words[0] | words[1]
        assert all(word in _ROLE_WORDS for word in words[0] ^ words[1])


_ROLE_WORDS = {
    *("parent.", "partner.", "friend.", "colleague.", "teacher.", "classmate."),
    *("brother", "or", "sister.", "a", "stranger", "passing", "by.", "their"),
}


def test_statement_crossings_pair_like_with_like(hed):
    crossings = statement_crossings(hed)
    require_crossed([pair for one in crossings for pair in crossed_pairs(one)])
    by_response = {(r.response, r.statement_id): r for r in hed}
    for one in crossings:
        first, second = one.group.split("+")
        assert first != second
        records = [by_response.get((reply, s)) for reply in one.replies for s in (first, second)]
        found = [record for record in records if record]
        assert {record.task for record in found if record.emotion == found[0].emotion}


def test_within_keeps_a_pair_of_groups_together():
    def crossing(group):
        return dataclasses.replace(parse_crossed(ROW), group=group)

    crossings = [crossing("a+b"), crossing("a+c"), crossing("b")]
    assert [one.group for one in within(crossings, {"a", "b"})] == ["a+b", "b"]


def test_turn_crossings_exchange_neighbours():
    records = read_records(samples.path("eea/distress.jsonl"), "steered")[:5]
    for one in turn_crossings(records):
        assert one.prompts[1][: len(one.prompts[0])] == one.prompts[0]
        assert one.prompts[1][len(one.prompts[0])].content == one.replies[0]


def test_an_uneven_set_is_refused():
    pairs = crossed_pairs(parse_crossed(ROW))
    with pytest.raises(InputError, match=r"cross-role-en-101/1.*both directions"):
        require_crossed(pairs[:1])


def test_the_schema_reads_pairs_and_documents():
    path = samples.path("crossed/role.en.jsonl")
    assert len(read_pairs(path, "crossed")) == 220
    assert len(read_documents(path, "crossed")) == 110

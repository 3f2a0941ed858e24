"""Controls that know no meaning, and the report of a reward model beside them."""

import numpy as np
import pytest

from hen_jax.data import samples
from hen_jax.data.crossed import is_crossed
from hen_jax.data.cues import cue_margins
from hen_jax.data.preferences import Pair
from hen_jax.data.schemas import read_pairs
from hen_jax.data.word_ranker import cross_validated_margins, word_counts, word_margins
from hen_jax.evaluation.preference_report import Held, TaskScores, report_preferences
from hen_jax.evaluation.preferences import pair_accuracy
from hen_jax.text.conversation import Message


def pair(chosen: str, rejected: str, group: str = "g") -> Pair:
    sides = ((Message("assistant", text),) for text in (chosen, rejected))
    return Pair(group, group, (Message("user", "Well?"),), *sides)


def test_words_are_words_and_of_chinese_characters_with_their_pairs():
    assert word_counts("It's fine, it's 12!") == {"it's": 2, "fine": 1, ",": 1, "12": 1, "!": 1}
    assert word_counts("你好吗") == {"你": 1, "好": 1, "吗": 1, "你好": 1, "好吗": 1}


def test_a_word_that_only_chosen_replies_have_is_found():
    train = [pair("that sounds hard", "just get over it", str(n)) for n in range(6)]
    test = [pair("it sounds so hard", "get on with it"), pair("get over it", "sounds hard")]
    first, second = word_margins(train, test)
    assert first > 0 > second
    assert word_margins(train, [pair("zebra", "lion")])[0] == 0


def test_length_alone_is_found_by_the_first_ranker():
    train = [pair("a b c d e f", "a b c", str(n)) for n in range(4)]
    length, cues = cue_margins(train, [pair("a b c d", "a"), pair("a", "a b c d")])
    assert length[0] > 0 > length[1]
    assert cues[0] == -cues[1]


def test_no_ranker_of_replies_solves_crossed_pairs():
    pairs = read_pairs(samples.path("crossed/emotion.en.jsonl"), "crossed")
    assert pair_accuracy(cross_validated_margins(pairs)).mean() == 0.5
    plain = read_pairs(samples.path("hed/hed.en.jsonl"), "hed")
    assert pair_accuracy(cross_validated_margins(plain)).mean() > 0.8


def held(n: int, kinds: list[str]) -> Held:
    half = np.arange(n) % 2 == 0
    lengths = np.full((n, 2), 10)
    return Held(np.ones(n), kinds, range(n), half, lengths, is_crossed, {"length": np.zeros(n)})


def test_the_report_separates_crossed_from_plain():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
    replies = TaskScores(scores.ravel(), ["SER", "SRER"] * 4)
    found = report_preferences(scores, held(4, ["level", "level", "generic", ""]), replies)
    assert found["accuracy"]["crossed/level"]["model"]["value"] == 0.5
    assert found["accuracy"]["crossed"]["pairs"] == 2
    assert found["accuracy"]["plain"]["model"]["value"] == 1.0
    assert {"plain/generic", "plain/pairs"} < found["accuracy"].keys()
    assert found["accuracy"]["plain"]["length"] == 0.5
    assert found["tasks"]["SER"] == {"mean": 1.5, "spread": scores[:, 0].std(), "replies": 4}


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated():
    """Differences d that are right with probability sigmoid(d / 2) have the temperature 2."""
    random = np.random.default_rng(0)
    size = random.uniform(0.1, 6, 6000)
    sign = np.where(random.random(6000) < 1 / (1 + np.exp(-size / 2)), 1, -1)
    scores = np.stack([size * sign, np.zeros(6000)], axis=1)
    replies = TaskScores(scores[:, 0], ["x"] * 6000)
    # Whole intervals need many draws over 6,000 groups: 20 groups say as much here.
    few = held(6000, ["generic"] * 6000)._replace(groups=np.arange(6000) % 20)
    found = report_preferences(scores, few, replies)
    assert found["temperature"] == pytest.approx(2.0, rel=0.05)
    assert found["calibration"]["ece"] < 0.03
    assert found["calibration"]["brier"] < 0.2


def test_shares_of_people_set_the_temperature_and_ties_count_in_no_accuracy():
    """Everybody's gap is 1 and three of four agree: sigmoid(1 / beta) = 0.75."""
    soft = held(4, ["generic"] * 4)._replace(shares=np.array([0.75, 0.75, 0.75, 0.5]))
    scores = np.array([[2.0, 1.0], [1.0, 0.0], [3.0, 2.0], [0.0, 0.0]])
    found = report_preferences(scores, soft, TaskScores(scores.ravel(), ["x"] * 8))
    assert found["temperature"] == pytest.approx(1 / np.log(3), rel=1e-3)
    assert found["accuracy"]["plain"] == found["accuracy"]["plain/generic"]
    assert found["accuracy"]["plain"]["pairs"] == 3
    assert found["accuracy"]["plain"]["model"]["value"] == 1.0
    assert found["centre"] == scores.mean()


def test_scores_that_are_all_equal_are_not_calibrated():
    found = report_preferences(
        np.ones((4, 2)), held(4, ["level"] * 4), TaskScores(np.ones(8), ["x"] * 8)
    )
    assert found["temperature"] is None
    assert found["calibration"] is None
    assert found["accuracy"]["crossed"]["model"]["value"] == 0.5

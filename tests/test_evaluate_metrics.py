"""Metrics of `hen evaluate` against sacrebleu, rouge-score, scikit-learn and hand counts."""

import dataclasses
import random
import time

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sklearn.metrics import accuracy_score, f1_score

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.sentiment import LabelledSet, read_labelled, shipped_labelled
from hen_jax.empathy.wordings import ADVICE, EMOTION_WORDS, count_words
from hen_jax.evaluation.figures import measured
from hen_jax.evaluation.suite import Item, Judge, LogProbs, RewardScorer, SuiteContext
from hen_jax.evaluation.suites import cost as suite_of_costs
from hen_jax.evaluation.suites import (
    crossed,
    empathy,
    groups,
    high_context,
    judges,
    overlap,
    sentiment,
)
from hen_jax.evaluation.suites import perplexity as likely
from hen_jax.text.conversation import Message, Reply
from hen_jax.verbs.evaluate.inspect_logs import sample_scores

EN = ["The rain stops soon, I think.", "Come in, the tea is hot!", "No.", "", "tea tea tea tea tea"]
EN_REFERENCES = ["Rain stops soon.", "Come on in; tea is hot.", "No, not yet.", "Sleep.", "tea"]
ZH = ["今天天气很好，我们去公园走走吧。", "别急，我就来。", "嗯", "", "好好好好好"]
ZH_REFERENCES = ["今天天气真好，去公园吧。", "别着急，马上到。", "嗯嗯", "睡吧。", "好"]
SETS = {"en": (EN, EN_REFERENCES, "13a"), "zh": (ZH, ZH_REFERENCES, "zh")}


def items(replies, language="en", task="", references=None) -> list[Item]:
    return [
        Item(f"i{at}", f"c{at // 2}", (Message("user", f"u{at}"),),
             references[at] if references else None, language, task)
        for at in range(len(replies))
    ]  # fmt: skip


def figures(found) -> dict:
    return {(one.measure, one.group): measured("s", "a", one).value for one in found}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_bleu_and_chrf_are_sacrebleu_s(language):
    replies, references, cut = SETS[language]
    own = items(replies, language, references=references)
    found = figures(overlap.observe_overlap(own, replies, "all"))
    expected = BLEU(tokenize=cut).corpus_score(replies, [references]).score
    assert found["bleu", "all"] == pytest.approx(expected, abs=1e-9)
    expected = CHRF().corpus_score(replies, [references]).score
    assert found["chrf", "all"] == pytest.approx(expected, abs=1e-9)
    assert found["bleu", "all"] > 1


def test_chrf_is_sacrebleu_s_on_any_text():
    draw = random.Random(0)
    for _ in range(100):
        one, other = ("".join(draw.choices("ab c天", k=draw.randrange(9))) for _ in "ab")
        sums = np.asarray(overlap.chrf_counts(one, other), float)
        expected = CHRF().corpus_score([one], [[other]]).score
        assert float(overlap.chrf(sums)) == pytest.approx(expected, abs=1e-9)


def test_equal_chinese_has_full_overlap_and_unlike_chinese_none():
    same = figures(overlap.observe_overlap(items(ZH[:1], "zh", references=ZH[:1]), ZH[:1], "all"))
    assert [same[name, "all"] for name in ("bleu", "chrf", "rouge_l")] == pytest.approx([100] * 3)
    assert overlap.rouge_l("我今年28岁了。", "他住在28号楼。", "zh") == pytest.approx(100 / 6)
    signature = next(iter(overlap.observe_overlap(items(ZH[:1], "zh"), ZH[:1], "all"))).about
    assert "tok:zh" in signature
    assert "nrefs:1" in signature


def test_an_item_without_a_reference_counts_as_missing_in_overlap():
    own = items(EN[:3], references=[EN_REFERENCES[0], None, EN_REFERENCES[2]])
    lines = [measured("s", "a", one) for one in overlap.observe_overlap(own, EN[:3], "all")]
    counts = {line.measure: (line.n, line.missing) for line in lines}
    assert counts["bleu"] == counts["chrf"] == counts["rouge_l"] == (2, 1)
    assert counts["distinct_1"] == counts["self_repetition"] == (3, 0)


def test_variety_by_hand_and_by_leaving_out():
    replies = ["a b a", "a b", "c", "c"]
    found = {one.measure: one for one in overlap.observe_overlap(items(replies), replies, "all")}
    assert found["distinct_1"].value == pytest.approx(100 * 3 / 7)
    assert found["distinct_2"].value == pytest.approx(100 * 2 / 3)
    assert found["unique"].value == pytest.approx(75)
    assert found["distinct_1"].without == {
        "c0": pytest.approx(overlap.distinct(["c", "c"], 1)),
        "c1": pytest.approx(overlap.distinct(replies[:2], 1)),
    }
    assert found["unique"].without == {"c0": 50.0, "c1": 100.0}
    assert measured("s", "a", found["self_repetition"]).value == 0


@pytest.mark.parametrize(
    ("text", "sentences", "questions"),
    [
        ("[" * 200_000, 0, 0),
        ("x" * 200_000, 1, 0),
        ("Why?? So. \n [..] Oh", 3, 1),
        ("你好吗。好！…", 2, 1),
        ("?!", 0, 0),
    ],
)
def test_sentences_are_counted_in_one_pass(text, sentences, questions):
    began = time.process_time()
    found = high_context.counts(text, "en")
    assert (found.sentences, found.questions) == (sentences, questions)
    assert time.process_time() - began < 5  # quadratic, the first took hours


def test_of_a_very_long_reply_the_beginning_is_compared_and_each_figure_says_so():
    long, references = "tea " * 50_000, ["tea", "tea"]
    own = items([long, "tea"], references=references)
    found = list(overlap.observe_overlap(own, [long, "tea"], "all"))
    assert all("; the first 10000 characters of 1 texts" in one.about for one in found)
    short = overlap.observe_overlap(own, [long[: overlap.LONGEST], "tea"], "all")
    assert figures(found) == figures(short)
    again = list(overlap.observe_overlap(own, ["tea", "tea"], "all"))
    assert not any("characters of" in one.about for one in again)


def test_words_are_counted_whole_in_english_and_anywhere_in_chinese():
    advice = count_words("Try to rest. Entry is free; you should, try.", ADVICE["en"], "en")
    assert advice == 3  # "try to" once and not "try" again; "you should"; "try"
    assert count_words("I feel SAD, saddle up", EMOTION_WORDS["en"], "en") == 2
    assert count_words("他很着急，也很担心。", EMOTION_WORDS["zh"], "zh") == 2
    for words in (EMOTION_WORDS, ADVICE):
        for listed in words.values():
            assert len(set(listed)) == len(listed)
            assert all(word == word.lower() for word in listed)


def test_high_context_measures_of_three_replies():
    replies = [
        Reply("I'm sorry to hear that. You should try to feel calm. Is that so?"),
        Reply("Tea? It's on."),
        Reply("", stopped=False),
    ]
    found = figures(high_context.observe_style(items(replies), replies))
    assert found["length", "all"] == pytest.approx((14 + 3) / 3)
    assert found["emotion_words", "all"] == pytest.approx(100 * 2 / 17)
    assert found["names_emotion", "all"] == found["formulaic", "all"] == pytest.approx(1 / 3)
    assert found["advice_words", "all"] == pytest.approx(100 * 2 / 17)
    assert found["questions", "all"] == pytest.approx(100 * 2 / 5)
    assert found["empty", "all"] == found["cut", "all"] == pytest.approx(1 / 3)


def test_chinese_questions_are_seen_by_mark_or_particle():
    found = high_context.counts("吃了吗。走吧！去哪儿？行", "zh")
    assert (found.sentences, found.questions, found.words) == (4, 2, 9)


def test_groups_are_languages_and_their_tasks():
    own = [*items("ab", "zh", "SER"), *items("ab", "zh", "SPER"), *items("a", "en", "SER")]
    assert groups.groups_of(own) == {
        "zh": [0, 1, 2, 3], "en": [4], "zh/SER": [0, 1], "zh/SPER": [2, 3],
    }  # fmt: skip


def test_emp_is_a_mean_by_task_and_macro_the_mean_of_these():
    own = [*items("abc", task="SER"), *items("a", task="SRER")]
    parts = np.asarray([0.0, 0.5, np.nan, 1.0])
    plain = empathy.Observed("emp", "", (), (), parts)
    found = list(empathy.emp(own, parts, plain))
    assert figures(found) == {
        ("emp", "en/SER"): pytest.approx(25),
        ("emp", "en/SRER"): pytest.approx(100), ("emp", "en/macro"): pytest.approx(62.5),
    }  # fmt: skip
    missing = {one.group: measured("s", "a", one).missing for one in found}
    assert missing == {"en/SER": 1, "en/SRER": 0, "en/macro": 1}


def test_a_reward_is_calibrated_on_the_first_arm_language_by_language():
    own = [*items("ab", "en"), *items("ab", "zh")]
    first = np.asarray([1.0, 3.0, 10.0, 30.0])
    same = empathy.levels_against(own, first, first)
    np.testing.assert_allclose(same, 1 / (1 + np.exp([1, -1, 1, -1])))
    moved = empathy.levels_against(own, first + np.asarray([1, 1, 10, 10]), first)
    np.testing.assert_allclose(moved, 1 / (1 + np.exp([0, -2, 0, -2])))


def test_accuracy_and_macro_f1_are_scikit_learn_s():
    draw = np.random.default_rng(0)
    texts = read_labelled(samples.path("sentiment/sentiment.en.jsonl"))
    scores, plain = draw.normal(size=(2, len(texts.texts), 3))
    found = figures(sentiment.observe_sentiment(texts, scores, plain))
    true = np.asarray([texts.labels.index(one.label) for one in texts.texts])
    for suffix, by in (("", scores), ("_calibrated", scores - plain)):
        guessed = by.argmax(axis=1)
        name = "sentiment.en"
        accuracy = 100 * accuracy_score(true, guessed)
        assert found[f"accuracy{suffix}", name] == pytest.approx(accuracy, abs=1e-9)
        f1 = 100 * f1_score(true, guessed, average="macro")
        assert found[f"macro_f1{suffix}", name] == pytest.approx(f1, abs=1e-9)
    assert found["majority", "sentiment.en"] == pytest.approx(100 / 3)


def test_the_shipped_sentences_are_balanced_and_a_user_s_set_is_read(tmp_path):
    for found in shipped_labelled(("en", "zh")):
        counts = [sum(one.label == label for one in found.texts) for label in found.labels]
        assert counts == [12, 12, 12]
        assert len({one.text for one in found.texts}) == 36
    mine = tmp_path / "mine.csv"
    mine.write_text("text,label\ngood one,1\nbad one,0\n")
    assert [one.label for one in read_labelled(mine).texts] == ["1", "0"]
    mine.write_text("text,label\ngood one,1\n")
    with pytest.raises(InputError, match=r"mine\.csv: 1 different labels"):
        read_labelled(mine)


def test_crossed_margins_by_hand():
    def scored(*sums):
        return LogProbs(np.asarray(sums), np.ones(2))

    found = crossed.margins(scored(-1.0, -2.0), scored(-3.0, -3.5), scored(-2.0, -4.0))
    assert found == {
        "at_prompt": [1.0, -0.5], "ratio": [-1.0, 1.5], "interaction": [0.5],
        "without_condition": [2.0, -2.0],
    }  # fmt: skip
    swapped = judges.crossed_margins(np.asarray([[[-1.0, -2.0], [-3.0, -3.5]]]))
    assert swapped == [{"at_prompt": [1.0, -0.5], "interaction": [0.5]}]


def test_controls_of_the_shipped_crossed_items_are_at_chance_by_construction():
    found = crossed.shipped_crossings(["en"], 15)
    assert len(found) == 60
    plain = [{"without_condition": [1.0, -1.0]} for _ in found]
    margins = [a | b for a, b in zip(crossed.controls(found), plain, strict=True)]
    values = figures(crossed.crossed_accuracies(found, margins))
    assert {group for _, group in values} == {"en", *(f"en/{kind}" for kind in crossed.CROSSINGS)}
    assert values["control_length", "en"] == values["without_condition", "en"] == 50
    assert values["control_words", "en"] == pytest.approx(50, abs=1e-9)


def test_perplexity_and_bits_by_character_of_a_uniform_model():
    sums = np.asarray([-10 * np.log(16), 10.0, 20.0])
    assert likely.perplexity(sums) == pytest.approx(16)
    assert likely.bits_per_character(sums) == pytest.approx(2)


def test_a_favourite_label_gains_nothing_when_calibrated():
    texts = read_labelled(samples.path("sentiment/sentiment.zh.jsonl"))
    own = LabelledSet("x", texts.texts[:6], texts.labels)
    right = np.eye(3)[[own.labels.index(one.label) for one in own.texts]]
    favourite = np.asarray([5.0, 0.0, 0.0])
    found = figures(sentiment.observe_sentiment(own, right + favourite, np.tile(favourite, (6, 1))))
    assert found["accuracy", "x"] == pytest.approx(100 / 3)
    assert found["accuracy_calibrated", "x"] == pytest.approx(100)


def context(own, replies, **more) -> SuiteContext:
    def none(*_):
        raise AssertionError("nobody asks for this")

    said = [Reply(text) for text in replies]
    given = {"log_probs": none, "once": none, "cost": none, "replies_of": lambda _, __: said} | more
    return SuiteContext("a", "a", own, lambda _: said, **given)


def test_emp_by_reward_is_half_on_average_for_the_first_arm_and_nothing_when_empty():
    own = items("abcd", task="SER")
    reward = RewardScorer(
        "longer", lambda said: np.asarray([len(x.messages[-1].content) for x in said])
    )
    given = context(own, ["aaaa", "aa", "aaa", ""], reward=reward, judge=None)
    (found,) = list(empathy.SUITE.run(given))
    first = np.asarray([4.0, 2.0, 3.0, 0.0])
    expected = 100 / (1 + np.exp(-(first - first.mean()) / first.std()))
    assert found.values.tolist() == pytest.approx([*expected[:3], 0.0])
    assert (found.measure, found.group, found.judge) == ("emp_reward", "en", "longer")


def test_what_a_judge_or_reward_tells_itself_is_measured_once():
    known = {
        (one.prompts[k], one.replies[k])
        for one in crossed.shipped_crossings(["en"], 2)
        for k in (0, 1)
    }
    right = RewardScorer("knows", lambda said: np.asarray(
        [float((x.messages[:-1], x.messages[-1].content) in known) for x in said]))  # fmt: skip
    blind = Judge("blind", lambda asked: [Reply('{"score": 3}') for _ in asked])
    more = {"languages": ("en",), "limit": 2, "reward": right, "judge": blind}
    lines = list(judges.SUITE.run(context(items("a"), ["x"], **more)))
    values = {(one.arm, one.measure, one.group): one.value for one in lines}
    assert values["knows", "at_prompt", "en/fact"] == values["knows", "interaction", "en"] == 100
    assert values["blind", "at_prompt", "en"] == values["blind", "interaction", "en/role"] == 50
    again = dataclasses.replace(context(items("a"), ["x"], **more), arm="b")
    assert list(judges.SUITE.run(again)) == []


def test_a_verdict_that_cannot_be_read_leaves_a_crossed_item_without_a_value():
    lame = Judge("lame", lambda asked: [Reply("3") for _ in asked])
    given = context(items("a"), ["x"], judge=lame, languages=("zh",), limit=1)
    assert {(one.value, one.n) for one in judges.SUITE.run(given)} == {(None, 0)}


def test_cost_is_by_reply_and_by_second():
    def cost(asked):
        return {"seconds": [0.5] * len(asked), "tokens": [10, 20][: len(asked)],
                "first_seconds": 3.0, "together_tokens_per_second": None,
                "peak_host_mib": 100.0}  # fmt: skip

    found = list(suite_of_costs.SUITE.run(context(items("ab"), ["x", "y"], cost=cost)))
    values = {one.measure: measured("s", "a", one).value for one in found}
    assert values == {
        "seconds": 0.5, "tokens": 15, "tokens_per_second": pytest.approx(30),
        "first_seconds": 3, "peak_host_mib": 100,
    }  # fmt: skip


def test_logs_leave_out_what_has_no_value_of_an_item_by_itself():
    own = items(EN[:2], references=[EN_REFERENCES[0], None])
    scores = sample_scores(list(overlap.observe_overlap(own, EN[:2], "en")))
    assert scores["i0"]["chrf"] == pytest.approx(
        CHRF().corpus_score(EN[:1], [EN_REFERENCES[:1]]).score
    )
    assert set(scores["i1"]) == {"self_repetition"}

"""Rewards: rules, mixtures, calibration, and what becomes of those that fail."""

import math
import re
import threading

import numpy as np
import pytest

from hen_jax.core.errors import InputError
from hen_jax.empathy.formulas import FORMULAS, formulas_in
from hen_jax.evaluation.calibration import Calibration, TaskScale
from hen_jax.evaluation.judge_rewards import judged
from hen_jax.evaluation.reply_rules import (
    in_language,
    length_band,
    no_formulas,
    no_repetition,
    words_of,
)
from hen_jax.evaluation.rewards import (
    Answered,
    Term,
    calibrated,
    each,
    emotion_change,
    mixed,
)
from hen_jax.evaluation.rubrics import load_rubric
from hen_jax.recipes.policy_reward_kinds import reward_task
from hen_jax.recipes.policy_reward_source import Circumstance, RewardSource
from hen_jax.recipes.policy_rewards import check_rewards, function_of, terms
from hen_jax.text.conversation import Message, Reply

PROMPT = (Message("user", "My scooter broke down in the rain."),)


def answered(*replies, **record):
    return [
        Answered(PROMPT, reply, {"id": f"r{at}", **record}, at // 2)
        for at, reply in enumerate(replies)
    ]


def of(rule, reply, **record):
    return rule(PROMPT, reply, record)


def test_a_length_band_is_1_inside_and_falls_off_by_the_ratio():
    rule = length_band(4, 8)
    assert [of(rule, "x" * n) for n in (4, 6, 8)] == [1, 1, 1]
    assert of(rule, "xx") == 0.5
    assert of(rule, "x" * 16) == 0.5
    assert of(rule, " ") == 0
    assert of(rule, "a b c d") == 1  # white space does not count
    with pytest.raises(InputError, match="length band"):
        length_band(5, 4)


def test_repetition_counts_words_and_chinese_characters():
    assert of(no_repetition(2), "no no no no") == pytest.approx(1 / 3)
    assert of(no_repetition(2), "雨大雨大") == pytest.approx(2 / 3)
    assert of(no_repetition(3), "come in, I kept dinner warm") == 1
    assert words_of("It's 好的, Go!") == ["it's", "好", "的", "go"]


def test_the_language_is_that_of_the_letters():
    assert of(in_language("zh"), "先进屋, ok") == pytest.approx(3 / 5)
    assert of(in_language(), "先进屋", language="zh") == 1
    assert of(in_language(), "come in") == 1
    assert of(in_language("en"), "123") == 0
    with pytest.raises(InputError, match="language 'fr'"):
        in_language("fr")


@pytest.mark.parametrize(
    ("language", "reply", "expected"),
    [
        ("en", "I’m sorry to hear that. Your feelings are valid.", 0.25),
        ("en", "Come in, soup's on.", 1.0),
        ("zh", "我理解你的感受，你并不孤单。", 0.25),
        ("zh", "先进屋，汤还热着。", 1.0),
    ],
)
def test_formulas_halve_the_reward(language, reply, expected):
    assert of(no_formulas(), reply, language=language) == expected


def test_no_formula_is_hidden_by_its_own_case_or_apostrophe():
    for language, phrases in FORMULAS.items():
        for phrase in phrases:
            assert formulas_in(phrase.upper().replace("'", "’"), language)


def test_rewards_are_mixed_with_their_weights():
    found = mixed(
        [
            Term("a", lambda all_: [1.0, 2.0], 2.0),
            Term("b", lambda all_: [0.5, -1.0], -1.0),
            Term("probe", lambda all_: [9.0, 9.0], held_out=True),
        ],
        answered("x", "y"),
    )
    assert found.rewards.tolist() == [1.5, 5.0]
    assert np.isnan(found.parts[:, 2]).all()  # never asked while training
    assert found.valid.all()
    assert not found.problems


def test_a_held_out_reward_is_asked_at_evaluations_and_is_not_in_the_sum():
    probe = Term("probe", lambda all_: [math.nan, 9.0], held_out=True)
    found = mixed([Term("a", lambda all_: [1.0, 2.0]), probe], answered("x", "y"), True)
    assert found.rewards.tolist() == [1.0, 2.0]
    assert found.parts[1, 1] == 9.0
    assert found.valid.all()
    assert "probe" in found.problems[0]


def _raises(answered_):
    raise KeyError("no such task")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda all_: [1.0], "reward 'r' gave 1 numbers for 2 replies"),
        (lambda all_: [1.0, math.nan], "no finite number for 1 of 2 replies; .* record r1"),
        (lambda all_: [1.0, math.inf], "no finite number for 1 of 2"),
        (lambda all_: None, r"reward 'r' (gave|raised)"),
        (_raises, "reward 'r' raised KeyError: 'no such task'"),
    ],
)
def test_a_reward_that_fails_is_named_and_gives_no_number(reward, message):
    found = mixed([Term("r", reward), Term("s", lambda all_: [1.0, 1.0])], answered("x", "y"))
    assert re.search(message, found.problems[0])
    assert not found.valid.all()
    assert found.parts[:, 1].tolist() == [1.0, 1.0]


def test_one_reply_that_makes_a_function_raise_costs_the_others_nothing():
    def picky(prompt, reply, record):
        return 1.0 / len(reply)

    found = mixed([Term("picky", each(picky))], answered("ab", "", "abcd"))
    assert found.valid.tolist() == [True, False, True]
    assert found.rewards[[0, 2]].tolist() == [0.5, 0.25]
    assert "1 of 3 replies: raised ZeroDivisionError" in found.problems[0]
    assert "record r1" in found.problems[0]


def test_a_function_that_hangs_is_left_to_itself():
    never = threading.Event()

    def slow(prompt, reply, record):
        if reply == "hang":
            never.wait(30)
        return 1.0

    found = mixed([Term("slow", each(slow, timeout=0.2))], answered("a", "hang", "b"))
    never.set()
    assert found.valid.tolist() == [True, False, True]
    assert "took longer than 0.2 s (record r1)" in found.problems[0]


def test_a_frozen_calibration_puts_tasks_on_one_scale():
    tasks = {"SER": TaskScale(1.0, 2.0), "SRER": TaskScale(-3.0, 0.5)}
    reward = calibrated(lambda all_: [3.0, 3.0, 3.0], Calibration(1.0, 0.0, tasks), reward_task)
    asked = [Answered(PROMPT, "x", record) for record in ({"task": "SER"}, {"task": "SRER"}, {})]
    unseen = math.sqrt((4 + 0.25) / 2)
    np.testing.assert_allclose(reward(asked), [1.0, 12.0, 4.0 / unseen], rtol=1e-5)
    for wrong in ({}, {"SER": TaskScale(0.0, 0.0)}, {"SER": TaskScale(math.nan, 1.0)}):
        with pytest.raises(InputError, match="calibration"):
            calibrated(lambda all_: [], Calibration(1.0, 0.0, wrong), reward_task)


def test_a_change_of_emotion_is_after_minus_before():
    def feel(all_):
        return [len(one.reply) / 10 for one in all_]

    earlier = Answered(PROMPT, "abc", {})
    asked = answered("abcde", "a")
    reward = emotion_change(feel, lambda one: earlier if one.reply == "a" else None)
    np.testing.assert_allclose(reward(asked), [0.5, 0.1 - 0.3])


@pytest.mark.parametrize("mode", ["pointwise", "groupwise"])
def test_a_judge_is_a_reward_and_what_cannot_be_read_is_no_number(mode):
    """This judge likes long replies, and says nothing sensible of the empty one."""

    def chat(asked):
        return [Reply(_verdict(messages[-1].content)) for messages in asked]

    def _verdict(text):
        shown = re.findall(r"Reply [A-Z]:\n<<<\w+\n(.*?)\n\w+>>>", text, re.S)
        if mode == "pointwise":
            return f'{{"score": {len(shown[0])}}}' if shown[0] else "well"
        if any("?" in one for one in shown):
            return "well"
        order = sorted(range(len(shown)), key=lambda at: -len(shown[at]))
        letters = ", ".join(f'"{chr(65 + at)}"' for at in order)
        return f'{{"order": [{letters}]}}'

    rubric = load_rubric("general")
    reward = judged(chat, lambda record: rubric, mode)
    if mode == "pointwise":
        low, high = rubric.low, rubric.high
        found = reward(answered("x" * low, "x" * high, "", "xx"))
        np.testing.assert_allclose(found, [0.0, 1.0, math.nan, (2 - low) / (high - low)])
    else:
        np.testing.assert_allclose(
            reward(answered("long one", "no", "?", "a?")), [1.0, 0.0, math.nan, math.nan]
        )


def test_a_function_is_read_from_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def short(prompt, reply, record):\n    return float(len(reply) < 5)\n")
    source = RewardSource("function", path=f"{file}:short", weight=2.0)
    (term,) = terms([source], Circumstance(1.0, 64))
    found = mixed([term], answered("abc", "abcdef"))
    assert found.rewards.tolist() == [2.0, 0.0]
    for name, text in (("a.txt", ""), ("b.py", "def short(:"), ("c.py", "1 / 0")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=rf"{name}.*(is not a Python file|Error: .*; mend it)"):
            function_of(RewardSource("function", path=f"{tmp_path / name}:short"))
    for path in (f"{file}:long", str(file), f"{tmp_path}/none.py:short"):
        with pytest.raises(InputError, match=r"FILE\.py:NAME|no function"):
            function_of(RewardSource("function", path=path))


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([RewardSource("lenght")], "kind 'lenght'; allowed: length, "),
        ([RewardSource("length"), RewardSource("length")], "two are called 'length'"),
        ([RewardSource("length", held_out=True)], "none to train on"),
        ([], "none to train on"),
    ],
)
def test_rewards_that_cannot_train_are_refused(sources, message):
    with pytest.raises(InputError, match=message):
        check_rewards(sources)

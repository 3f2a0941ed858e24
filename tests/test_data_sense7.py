"""The published rules of SENSE-7: what is a rating, which mean comes first, what is rounded how."""

import json

import numpy as np
import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.samples.build_sense7 import write_workbook
from hen_jax.data.sense7 import RatedConversation, RatedTurn, check_sense7, rating, read_sense7
from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.evaluation.ratings import (
    Rating,
    by,
    compare_groups,
    compare_levels,
    describe,
    ground_truth,
    holm,
    normalised,
    satisfaction,
    score_ratings,
)
from hen_jax.text.conversation import Message
from hen_jax.verbs.data.sense7 import analyse

WORKBOOK, LINES = samples.path("sense7/sense7.xlsx"), samples.path("sense7/conversations.jsonl")


def conversation(*turn_ratings: dict[str, float]) -> RatedConversation:
    turns = tuple(RatedTurn(Message("assistant", "x"), given, False) for given in turn_ratings)
    return RatedConversation("T", "P", "m", "t", None, None, 2.0, {}, {}, turns)


def level(person: str, desired: float, perceived: float, satisfied: float | None = None) -> Rating:
    return Rating(person, "task", "career", desired, perceived, satisfied)


def test_the_shipped_workbook_is_its_lines_in_two_sheets(tmp_path):
    assert read_sense7(WORKBOOK) == read_sense7(LINES)
    write_workbook(LINES, tmp_path / "again.xlsx")
    assert read_sense7(tmp_path / "again.xlsx") == read_sense7(WORKBOOK)
    assert {one.context for one in read_sense7(WORKBOOK)} == set(CONTEXTS)


def test_words_and_numbers_are_the_same_ratings():
    words = ["very good", " Good ", "NEUTRAL", "poor", "Very Poor", "unknown", "", None]
    assert [rating(word) for word in words] == [5, 4, 3, 2, 1, None, None, None]
    assert [rating(number) for number in (5, 4.5, "3", float("nan"))] == [5, 4.5, 3, None]
    for bad in ("great", 0, 6, True, []):
        with pytest.raises(InputError, match="is no rating; allowed: very good"):
            rating(bad)


def test_retries_stay_errors_go_and_missing_content_is_pending(tmp_path):
    row = json.loads(LINES.read_text().splitlines()[15])
    messages = row["messages"]
    assert [m["Role"] for m in messages[3:5]] == ["error", "assistant"]
    messages[4] |= {"Content": None, "EmpathyOverall": "nonsense"}  # it is never read
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    (found,) = read_sense7(tmp_path / "x.jsonl")
    assert len(found.turns) == len(messages) - 1
    assert (found.turns[3].message.content, found.turns[3].retry) == ("pending", True)


def test_ground_truth_is_turn_first():
    unbalanced = conversation({"Affective": 5}, {}, {"Affective": 1, "Cognitive": 2})
    assert ground_truth(unbalanced) == 3.25  # the mean of all ratings is 2.67
    assert ground_truth(conversation({}, {})) is None


def test_scores_round_half_to_even_and_keep_the_errors_unrounded():
    scores = score_ratings([2.5, 3.5, 4.5, 1.0, None], [2.0, 4.0, 4.0, 3.0, 5.0])
    assert (scores.rows, scores.accuracy, scores.within_one) == (4, 0.75, 0.75)
    assert scores.mean_absolute_error == pytest.approx((0.5 + 0.5 + 0.5 + 2) / 4)
    # classes 2 and 4 are all right; 1 is never guessed and 3 never true
    assert scores.macro_f1 == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert score_ratings([9, 1], [5, 1]).accuracy == 1  # clipped to the scale
    assert np.isnan(score_ratings([1, 2], [3, 3]).spearman)
    with pytest.raises(InputError, match="no row has both"):
        score_ratings([None], [1.0])


def test_levels_meet_in_the_unit_interval_and_the_gap_is_wanted_less_got():
    (found,) = normalised([conversation({"Affective": 4}), conversation({})])
    assert (found.desired, found.perceived, found.gap) == (0.5, 0.75, -0.25)


def test_the_bootstrap_resamples_people_and_not_conversations():
    """One person's hundred equal conversations say no more than one of them."""
    people = [level(str(n), 0.5, n / 8) for n in range(9)]
    talkative = people + [level("0", 0.5, 0.0)] * 100
    alone, with_talker = describe(people), describe(talkative)
    assert alone.perceived.mean == pytest.approx(0.5)
    spread = np.std([n / 8 for n in range(9)]) / 3
    assert alone.perceived.high - alone.perceived.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert with_talker.perceived.high > 0.5  # resampling conversations would give below 0.1
    assert np.isnan(describe([level("a", 0, 1)]).gap.low)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_p_value_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, adjusted in zip(p_values, corrected, strict=True):
        assert p <= adjusted <= min(1, len(p_values) * p)
    order = np.argsort(p_values, kind="stable")
    assert sorted(corrected) == [corrected[i] for i in order]


def test_worked_values_of_the_tests():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    low, high = (
        [level(str(n), 0.5, n / 100) for n in range(10)],
        [level(str(n), 0.5, 0.5 + n / 100) for n in range(10)],
    )
    (desired, perceived, gap) = compare_groups({"a": low, "b": high})
    assert (desired.p, desired.effect) == (1.0, 0.0)  # all the same
    assert perceived.statistic == pytest.approx(14.2857, abs=1e-4)  # 12/(20*21)*(55²+155²)/10 - 63
    assert perceived.effect == pytest.approx((perceived.statistic - 1) / 18)
    assert gap.p == pytest.approx(perceived.p)
    (paired,) = compare_levels({"a": low})
    assert (paired.effect, paired.p) == (1.0, pytest.approx(2 / 2**10))
    agreeing = satisfaction([level(str(n), 0, n / 5, n / 10) for n in range(5)])
    assert agreeing.effect == pytest.approx(1)
    with pytest.raises(InputError, match="at least two groups"):
        compare_groups({"a": low})


def test_equal_gaps_rank_as_equal():
    """Levels written so that binary fractions of the same gap differ in their last bit."""
    tenths = [level(str(n), (n + 1) / 10, n / 10) for n in range(10)]
    assert len({one.desired - one.perceived for one in tenths}) > 1
    (_, _, gap) = compare_groups({"a": tenths[:5], "b": tenths[5:]})
    assert (gap.p, gap.effect) == (1.0, 0.0)
    (paired,) = compare_levels({"a": tenths[:6]})
    assert (paired.p, paired.effect) == (pytest.approx(2 / 2**6), 1.0)
    # Four gaps of 0.1, two of -0.1, three of 0: six equal ranks, so the p value is that of a coin
    # that falls 4 of 6 times on one side: 2 (15 + 6 + 1) / 2^6 = 0.6875.
    mixed = [
        level(str(n), *pair)
        for n, pair in enumerate([
            (0.3, 0.2), (0.8, 0.7), (0.6, 0.5), (0.1, 0.0), (0.2, 0.3), (0.7, 0.8),
            (0.1 + 0.2, 0.3), (0.3, 0.3), (0.5, 0.5),
        ])
    ]  # fmt: skip
    (paired,) = compare_levels({"a": mixed})
    assert paired.effect == pytest.approx(1 / 3)
    assert paired.p == pytest.approx(0.6875)
    thirds = [level(str(n), 0, (0.1 + 0.2, 0.3)[n % 2], float(n)) for n in range(6)]
    assert np.isnan(satisfaction(thirds).effect)  # one level throughout, so nothing to rank


def test_a_workbook_without_satisfaction_gives_the_rest_of_the_report(tmp_path):
    rows = [json.loads(line) for line in LINES.read_text().splitlines()]
    for row in rows:
        row["task"] = {k: v for k, v in row["task"].items() if not k.startswith("PostTaskExp")}
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report, whole = analyse(tmp_path / "x.jsonl", tmp_path), analyse(LINES, tmp_path / "whole")
    assert (report["all"], report["tests"]) == (whole["all"], whole["tests"][:-1])
    assert whole["not_computed"] == []
    reason = "perceived with satisfaction: fewer than three conversations say how satisfied"
    assert report["not_computed"][0].startswith(reason)
    assert f"Not computed: {reason}" in (tmp_path / "sense7.md").read_text()


def test_bad_workbooks_are_named_by_row_and_column(tmp_path):
    book = openpyxl.load_workbook(WORKBOOK)
    columns = [cell.value for cell in book["Messages"][1]]
    book["Messages"].cell(3, columns.index("Affective") + 1, "superb")
    book["Tasks"].cell(5, 3, "T9999")
    book.save(tmp_path / "bad.xlsx")
    found = check_sense7(tmp_path / "bad.xlsx")
    assert len(found.records) == 46
    assert [str(problem).removeprefix(f"{tmp_path}/bad.xlsx:") for problem in found.problems] == [
        "3:Messages.Affective: 'superb' is no rating; allowed: very good, good, neutral, poor, "
        "very poor, unknown, or a number from 1 to 5",
        "2:Tasks.TaskId: T0001 has a bad message, so it is left out",
        "5:Tasks.TaskId: T9999 has no message, or is listed twice",
        "1:Messages.TaskId: T0004 is not in Tasks",
    ]
    del book["Tasks"]
    book.save(tmp_path / "bad.xlsx")
    with pytest.raises(InputError, match="no sheet Tasks; it has Messages"):
        check_sense7(tmp_path / "bad.xlsx")
    (tmp_path / "bad.xlsx").write_bytes(b"PK\x03\x04 not a workbook")
    with pytest.raises(InputError, match="workbook"):
        check_sense7(tmp_path / "bad.xlsx")


def test_the_analysis_of_the_shipped_workbook(tmp_path):
    report = analyse(WORKBOOK, tmp_path)
    assert json.loads((tmp_path / "sense7.json").read_text()) == json.loads(json.dumps(report))
    wanted = {name: group["desired"]["mean"] for name, group in report["contexts"].items()}
    assert max(wanted, key=wanted.get) == "distress"
    groups = by(normalised(read_sense7(WORKBOOK)), lambda one: one.context)
    for name, ratings in groups.items():
        group = report["contexts"][name]
        assert group["gap"]["mean"] == pytest.approx(np.mean([one.gap for one in ratings]))
        assert group["gap"]["low"] <= group["gap"]["mean"] <= group["gap"]["high"]
    text = (tmp_path / "sense7.md").read_text()
    assert all(f"| {task} | 6 |" in text for task in report["tasks"])
    assert (tmp_path / "sense7.png").read_bytes()[:4] == b"\x89PNG"
    assert report == analyse(WORKBOOK, tmp_path)  # by seed


def test_topics_of_another_workbook_are_mapped_by_file(tmp_path):
    mapping = tmp_path / "contexts.json"
    mapping.write_text(json.dumps({"work_issue": "writing"}))
    report = analyse(LINES, tmp_path / "out", mapping)
    assert list(report["contexts"]) == ["writing"]
    assert "self_improvement" in report["without_context"]
    mapping.write_text(json.dumps({"work_issue": "work"}))
    with pytest.raises(InputError, match="work_issue: 'work'; allowed: distress, career"):
        analyse(LINES, tmp_path / "out", mapping)


def test_a_negative_seed_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match=r"--seed is -1; allowed: 0 or more"):
        analyse(tmp_path / "none.xlsx", tmp_path / "out", seed=-1)


@pytest.mark.parametrize("context", [[], {}, None, 1])
def test_a_context_that_is_no_text_is_named(context, tmp_path):
    mapping = tmp_path / "contexts.json"
    mapping.write_text(json.dumps({"data": context}))
    file = tmp_path / "s.xlsx"
    with pytest.raises(InputError, match=r"contexts\.json: data: .*; allowed"):
        analyse(file, tmp_path / "out", mapping)

"""Benchmarks and questionnaires of the survey: published oracles, on fixtures of our own."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hen_jax.core.errors import InputError
from hen_jax.measures.administration import administer, administer_listed, read_rating
from hen_jax.measures.benchmarks import emotionbench, emotionbench_files, eqbench, eqbench_judge
from hen_jax.measures.benchmarks.emobench import read_emobench
from hen_jax.measures.benchmarks.scenarios import Scenario, play_scenarios, read_scenarios
from hen_jax.measures.benchmarks.trajectories import (
    PERSONAS,
    read_move,
    simulate,
    trajectory_figures,
)
from hen_jax.measures.instruments import load_instrument, names, parse_instrument, with_items
from hen_jax.measures.psychometrics import (
    CAUTION,
    Filling,
    acquiescence,
    beside_norms,
    cronbach_alpha,
    instrument_report,
    scores,
)
from hen_jax.measures.tasks.lexicon import read_word_list
from hen_jax.text.conversation import Message, Reply

REFERENCE_INTENSITIES = {0: 254, 1: 11, 2: 49, 3: 43, 4: 56, 5: 12, 6: 56, 7: 69, 8: 127, 9: 7}
"""How often each intensity stands among the 684 references of EQ-Bench v2 (counted there). The
score of a constant answer depends on nothing else, as it is linear in the sum over emotions."""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def questions() -> list[eqbench.EqQuestion]:
    every = [value for value, count in REFERENCE_INTENSITIES.items() for _ in range(count)]
    fours = np.random.default_rng(0).permutation(every).reshape(171, 4)
    return [
        eqbench.EqQuestion(str(at), "?", dict(zip("abcd", map(float, row), strict=True)))
        for at, row in enumerate(fours)
    ]


def test_eqbench_constants(questions):
    assert eqbench.constant_score(questions, 5) == pytest.approx(26.89, abs=0.005)
    assert eqbench.constant_score(questions, 0) == pytest.approx(2.36, abs=0.005)
    drawn = [eqbench.constant_score(questions, one) for one in range(11)]
    assert np.mean(drawn) == pytest.approx(1.4, abs=0.05)  # of an intensity drawn for each emotion
    perfect = [eqbench.EqAnswer(one.reference, {}) for one in questions]
    assert eqbench.eqbench_score(questions, perfect).score == pytest.approx(100)


def test_eqbench_differences():
    assert eqbench.scaled(0) == 0
    assert eqbench.scaled(4) == pytest.approx(3.25)  # the middle of the curve
    assert eqbench.scaled(5) == pytest.approx(6.5 / (1 + np.exp(-1.2)))
    assert eqbench.scaled(6) == 6
    assert eqbench.question_score({"a": 0.0, "b": 9.0}, {"a": 6.0, "b": 9.0}) == pytest.approx(
        10 - 0.7477 * 6
    )


REPLY = """**First pass scores:**
**Angry:** 7
Calm: 2.5
Proud: 0
Very Sad: 10

Critique: Angry: 3 is what some would say.

Revised scores:
Angry: 8
calm: 1
- Proud: 0
Very Sad: 9/10
[End of answer]"""


def test_eqbench_answers_are_read():
    emotions = ("Angry", "Calm", "Proud", "Very Sad")
    found = eqbench.read_answer(REPLY, emotions)
    assert list(found.first.values()) == [7, 2.5, 0, 10]
    assert list(found.revised.values()) == [8, 1, 0, 9]
    bare = eqbench.read_answer("Angry: 1\nCalm: 2\nProud: 3\nVery Sad: 4", emotions)
    assert (len(bare.first), dict(bare.revised)) == (4, {})
    assert eqbench.read_answer(REPLY.replace("Calm: 2.5", "Calm: 25"), emotions).first == {}
    assert eqbench.read_answer("I would say angry.", emotions) == ({}, {})
    for minus in ("-", "\u2212", " **-"):  # below 0 is no intensity
        assert eqbench.read_answer(REPLY.replace(" 2.5", f"{minus}2.5"), emotions).first == {}


FIRST = "First pass scores:\nAnger: 5\nVery Sad: 2\n"
REVISED = "Revised scores:\nAnger: 6\nVery Sad: 3\n"


@pytest.mark.parametrize(
    ("reply", "first", "revised"),
    [
        ("First pass scores: Anger: 5, Very Sad: 2. Critique: Anger: 9 is much. "
         "Revised scores: Anger: 6, Very Sad: 3", [5, 2], [6, 3]),
        ("1. Anger: 5\n2. Very Sad: 2", [5, 2], []),
        ("1) **Anger**: 5; 2) **Very Sad**: 2/10", [5, 2], []),
        (f"{FIRST}{REVISED}In the revised scores: I moved Anger.", [5, 2], [6, 3]),
        (f"{FIRST}Critique: I looked at the revised scores: fine.\n{REVISED}", [5, 2], [6, 3]),
        (f"{FIRST}In the revised scores: I would move Anger.", [5, 2], []),
        (f"{FIRST}{REVISED}Revised scores:\nAnger: 7\nVery Sad: 4", [6, 3], [7, 4]),
        ("Anger: -5, Very Sad: 2", [], []),
        ("Danger: 5, Very Sad: 2", [], []),
        ("Anger: 5, Sad: 2", [], []),
    ],
)  # fmt: skip
def test_eqbench_pairs_are_read_wherever_they_stand(reply, first, revised):
    found = eqbench.read_answer(reply, ("Anger", "Very Sad"))
    assert [list(one.values()) for one in found] == [first, revised]


def test_eqbench_revision_and_parsing(questions):
    good, poor = questions[0].reference, dict.fromkeys("abcd", 5.0)

    def run(answers):
        return eqbench.eqbench_score(questions[:100], answers)

    revised = run([eqbench.EqAnswer(poor, one.reference) for one in questions[:100]])
    assert revised.score == revised.revised == pytest.approx(100)
    worse = run([eqbench.EqAnswer(one.reference, poor) for one in questions[:100]])
    assert worse.score == worse.first == pytest.approx(100)  # the better of both passes
    seldom = [eqbench.EqAnswer(poor, one.reference if at < 94 else {})
              for at, one in enumerate(questions[:100])]  # fmt: skip
    assert run(seldom).score == run(seldom).first
    unread = [eqbench.EqAnswer(one.reference if at < 82 else {}, {})
              for at, one in enumerate(questions[:100])]  # fmt: skip
    assert run(unread).score is None
    assert run(unread).lm_eval == pytest.approx(82)
    assert len(good) == 4


def test_eqbench_file(tmp_path):
    names = {f"emotion{n}": f"E{n}" for n in range(1, 5)}
    scores = {f"emotion{n}_score": str(n) for n in range(1, 5)}
    one = {"prompt": "How?", "reference_answer_fullscale": names | scores}
    path = write(tmp_path / "q.json", json.dumps({"1": one}))
    [question] = eqbench.read_eqbench(path)
    assert dict(question.reference) == {"E1": 1, "E2": 2, "E3": 3, "E4": 4}
    with pytest.raises(InputError, match="no questions of EQ-Bench v2"):
        eqbench.read_eqbench(write(path, "[]"))
    for score in (float("nan"), 11, -1, "inf"):
        given = names | scores | {"emotion3_score": score}
        one = {"prompt": "How?", "reference_answer_fullscale": given}
        with pytest.raises(InputError, match=r"q\.json: question 7: E3 is .*; allowed: 0 to 10"):
            eqbench.read_eqbench(write(path, json.dumps({"7": one})))


MOOD = emotionbench.Questionnaire(
    "MOOD", {1: "Up", 2: "Down", 3: "Upbeat", 4: "Not up"}, "Rate. SCENARIO Now:", "Numbers only.",
    6, frozenset({4}), "SUM", {"Positive": (1, 3, 4), "Negative": (2,)},
)  # fmt: skip


def results(path: Path, columns: dict[str, list[str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*([" ", *cells] for cells in columns.values()), strict=True))
    return path


def test_emotionbench_deltas_from_a_result_file(tmp_path):
    path = results(
        tmp_path / "m-MOOD-testing.csv",
        {
            "question-0": ["1. Up", "2. Down", "3. Upbeat", "4. Not up"],
            "order-0": ["1", "2", "3", "4"],
            "order-1": ["4", "3", "2", "1"],
            "General_test-0_order-0": ["5", "1", "5", "1"],
            "General_test-1_order-1": ["1", "5", "1", "5"],
            "Anger-0_scenario-0_test-0_order-0": ["2", "4", "2", "3"],
            "Anger-1_scenario-0_test-0_order-1": ["4", "1", "5", "1"],
            "Fear-0_scenario-0_test-0_order-0": ["3", "3", "", "3"],
        },
    )
    fillings = emotionbench_files.read_results(path)
    assert [emotionbench.complete(MOOD, one) for one in fillings] == [True] * 4 + [False]
    shifts = emotionbench.shifts(MOOD, fillings)
    assert shifts["all"]["Positive"].default == 15  # 5 + 5 + (6 - 1), in both orders
    assert shifts["all"]["Positive"].delta == pytest.approx((7 + 4) / 2 - 15)  # 3 turned is 3
    assert shifts["Anger"]["Negative"].evoked == pytest.approx((4 + 5) / 2)
    assert shifts["Anger"]["Positive"].evoked == pytest.approx(((2 + 2 + 3) + (1 + 1 + 2)) / 2)
    assert "Fear" not in shifts
    with pytest.raises(InputError, match="no column such as General_test-0_order-0"):
        emotionbench_files.read_results(results(tmp_path / "x.csv", {"a": ["1"]}))


def test_a_constant_answer_shows_no_change():
    same = dict.fromkeys(MOOD.questions, 3)
    fillings = [emotionbench.Administration(key, same) for key in ["General"] * 5 + ["Anger-0"] * 9]
    shift = emotionbench.shifts(MOOD, fillings)["all"]["Positive"]
    assert (shift.delta, shift.change, shift.p) == (0, "none", pytest.approx(1))


def test_the_f_test_chooses_the_t_test():
    draw = np.random.default_rng(3)
    one, other = draw.normal(0, 1, 40), draw.normal(0.4, 9, 40)
    p, welch = emotionbench.t_test(one.tolist(), other.tolist())
    assert welch
    assert p == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue)
    p, welch = emotionbench.t_test(one.tolist(), (one + 1).tolist())
    assert not welch
    assert p == pytest.approx(stats.ttest_ind(one, one + 1).pvalue)
    one = np.arange(10.0)  # F is 6.25: P 0.006 on one side, 0.011 on both
    p, welch = emotionbench.t_test(one.tolist(), (0.4 * one).tolist())
    assert not welch
    assert p == pytest.approx(stats.ttest_ind(one, 0.4 * one).pvalue)


def test_emotionbench_is_administered(tmp_path):
    scale = {"name": "MOOD", "questions": {"1": "Up", "2": "Down"}, "compute_mode": "SUM",
             "prompt": "Rate. SCENARIO Now:", "inner_setting": "Numbers.", "scale": 6,
             "reverse": [],
             "categories": [{"cat_name": "P", "cat_questions": [1]}]}  # fmt: skip
    [mood] = emotionbench_files.read_questionnaires(
        write(tmp_path / "q.json", json.dumps([scale]))
    ).values()
    given = {"emotions": [{"name": "Anger", "factors": [{"name": "f", "scenarios": ["A queue."]}]}]}
    situations = emotionbench_files.read_situations(write(tmp_path / "s.json", json.dumps(given)))
    keys = emotionbench_files.situation_keys(situations)
    assert keys == [("Anger-0", "A queue.")]
    seen = []

    def chat(asked):
        seen.extend(messages[-1].content for messages in asked)
        high = ["1: 1\n2: 5" if text.index("Up") < text.index("Down") else "5 1" for text in seen]
        return [Reply(text) for text in high]

    found = emotionbench_files.administer_situations(mood, keys, chat, defaults=3, repeats=2)
    assert [one.key for one in found] == ["General"] * 3 + ["Anger-0"] * 2
    assert all(one.answers == {1: 1, 2: 5} for one in found)  # whatever the order
    assert "protagonist" not in seen[0]
    assert '"A queue."' in seen[-1]
    assert emotionbench_files.read_filling(mood, [1, 2], "I cannot say.") == {1: None, 2: None}
    assert emotionbench_files.read_filling(mood, [1, 2], "7 2") == {1: None, 2: 2}
    order = list(range(1, 13))
    lines = [f"{number}. Word: 4" for number in order]
    assert set(emotionbench_files.read_filling(mood, order, "\n".join(lines)).values()) == {4}
    lines[10] = "11. Irritable: I would rather not say"
    assert set(emotionbench_files.read_filling(mood, order, "\n".join(lines)).values()) == {None}


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("iri", 0, {"Fantasy": 8, "Empathic Concern": 12, "Perspective Taking": 8,
                    "Personal Distress": 8}),
        ("iri", 2, {"Fantasy": 14, "Empathic Concern": 14, "Perspective Taking": 14,
                    "Personal Distress": 14}),
        ("bes", 1, {"Cognitive": 21, "Affective": 31, "Total": 52}),
        ("bes", 5, {"Cognitive": 33, "Affective": 35, "Total": 68}),
        ("panas", 1, {"Positive Affect": 10, "Negative Affect": 10}),
    ],
)  # fmt: skip
def test_extremes_of_the_keys(name, answer, expected):
    instrument = load_instrument(name)
    assert scores(instrument, dict.fromkeys(range(1, instrument.n_items + 1), answer)) == expected


def test_every_key_is_whole():
    for name in names():
        instrument = load_instrument(name)
        placed = [item for items in instrument.subscales.values() for item in items]
        assert len(placed) == len(set(placed)) <= instrument.n_items, name
        assert not instrument.items, f"{name} holds somebody's wording"
        if instrument.total:
            assert set(placed) == set(range(1, instrument.n_items + 1)), name
    dass = load_instrument("dass21")
    assert scores(dass, dict.fromkeys(range(1, 22), 1))["Anxiety"] == 14  # twice the sum


def test_wording_comes_from_the_user(tmp_path):
    bes = load_instrument("bes")
    with pytest.raises(InputError, match="does not come with hen_jax: give a file with its 20"):
        with_items(bes, None)
    path = write(tmp_path / "items.txt", "".join(f"Item {n}\n" for n in range(1, 21)))
    assert with_items(bes, path).items[20] == "Item 20"
    with pytest.raises(InputError, match=r"items\.txt: items: 1 texts; allowed: one for each"):
        with_items(bes, write(path, "only one\n"))
    with pytest.raises(InputError, match="instrument 'eq'; allowed: agq, bdi"):
        load_instrument("eq")
    with pytest.raises(InputError, match=r"reverse: \[21\]; allowed: item numbers from 1 to 20"):
        parse_instrument({"id": "x", "form": "", "n_items": 20, "range": [1, 5], "mode": "sum",
                          "reverse": [21], "subscales": {"a": [1]}, "licence": "",
                          "source": ""})  # fmt: skip


def test_cronbach_by_hand():
    table = np.asarray([[1, 2], [2, 4], [3, 3]])  # variances 1 and 1, of the sums 3
    assert cronbach_alpha(table) == pytest.approx(2 * (1 - 2 / 3))
    assert cronbach_alpha(np.asarray([[1, 1], [2, 2], [5, 5]])) == pytest.approx(1)
    assert np.isnan(cronbach_alpha(np.asarray([[1, 2]])))


def test_acquiescence():
    iri = load_instrument("iri")
    every = range(1, 29)
    assert acquiescence(iri, dict.fromkeys(every, 4)) == 1
    honest = {item: 0 if item in iri.reverse else 4 for item in every}
    assert acquiescence(iri, honest) == 0
    assert acquiescence(load_instrument("panas"), {1: 5}) is None


@pytest.mark.parametrize(
    ("reply", "read"),
    [("4", 4), ("4.", 4), ("**4**", 4), ("4/5", 4), ("Answer: 4", 4), ("评分：4", 4),
     ("4 (mostly)", 4),
     ("4 or 5", None), ("4.5", None), ("40", None), ("-4", None), ("I feel 4", None), ("", None)],
)  # fmt: skip
def test_ratings_are_read_strictly(reply, read):
    assert read_rating(reply, 1, 5) == read


def test_an_instrument_is_administered(tmp_path):
    lines = "".join(f"Item {n}\n" for n in range(1, 29))
    iri = with_items(load_instrument("iri"), write(tmp_path / "items.txt", lines))
    first = []

    def chat(asked):
        first.append(asked[0][0].content)
        return [
            Reply("I would rather not." if one[0].content.endswith("Item 28") else "2")
            for one in asked
        ]

    fillings = administer(iri, chat, repeats=3, seed=1)
    report = instrument_report(iri, fillings)
    assert report["refused"] == 3
    assert report["scores"]["Fantasy"]["mean"] == 14
    assert report["scores"]["Perspective Taking"] == {
        "mean": None,
        "sd": None,
        "n": 0,
        "alpha": None,
    }
    assert "Total" not in report["scores"]
    assert report["caution"] == CAUTION
    assert beside_norms(report, {"Fantasy": (10, 2)}) == {"Fantasy": 2}
    assert not first[0].endswith("Item 1") or len(fillings) == 3
    with pytest.raises(InputError, match="has no wording"):
        administer(load_instrument("iri"), chat)
    assert instrument_report(iri, [Filling(dict.fromkeys(range(1, 29), 0))])["fillings"] == 1


def traits(**more) -> str:
    return json.dumps(dict.fromkeys(eqbench_judge.JUDGED_TRAITS, 10) | more)


def margins(winner: str, plus: int = 2) -> str:
    return json.dumps(dict.fromkeys(eqbench_judge.CRITERIA, winner + "+" * plus))


def test_traits_and_margins_are_read_strictly():
    found = eqbench_judge.read_traits(Reply(traits(warmth=20)))
    assert found is not None
    assert eqbench_judge.trait_score(found) == 50  # warmth describes, it does not score
    for bad in (traits(warmth=21), traits(warmth=True), traits(kindness=3), "fine", "[]"):
        assert eqbench_judge.read_traits(Reply(bad)) is None
    good = eqbench_judge.read_margins(Reply(margins("B", 3)))
    assert good is not None
    assert {one.signed for one in good} == {-3}
    for bad in (margins("C"), margins("A", 6), margins("tie", 0), "{}"):
        assert eqbench_judge.read_margins(Reply(bad)) is None


def test_players_are_compared_in_both_orders():
    said = {name: {f"s{n}": (Message("user", "Hm."), Message("assistant", name)) for n in range(4)}
            for name in ("kind", "curt")}  # fmt: skip

    def likes_kind(asked):
        return [Reply(margins("A" if "kind" in one[0].content.split("\nB\n")[0] else "B"))
                for one in asked]  # fmt: skip

    found = eqbench_judge.compare_players(said, likes_kind)
    assert [(one.outcome, one.margin) for one in found] == [(1.0, 2.0)] * 4
    lead = eqbench_judge.compare_players(said, lambda asked: [Reply(margins("A")) for _ in asked])
    assert [(one.outcome, one.margin) for one in lead] == [(0.5, 0.0)] * 4  # likes what comes first
    report = eqbench_judge.judge_report([*found, *lead[:1]])
    assert report["consistency"] == 0.8
    assert report["ranking"]["standings"][0]["player"] == "kind"
    assert report["ranking"]["groups"] == 4
    broken = eqbench_judge.compare_players(said, lambda asked: [Reply("both") for _ in asked])
    with pytest.raises(InputError, match="no verdict in both orders among 4"):
        eqbench_judge.judge_report(broken)


def test_scenarios_are_played(tmp_path):
    path = write(
        tmp_path / "s.jsonl", '{"id": "a", "turns": ["One", "Two"]}\n{"id": "b", "turns": ["Hi"]}\n'
    )
    read = read_scenarios(path)
    assert read == [Scenario("a", ("One", "Two")), Scenario("b", ("Hi",))]
    said = play_scenarios(read, lambda asked: [Reply(f"{len(one)}") for one in asked])
    assert [one.content for one in said["a"]] == ["One", "1", "Two", "3"]
    assert len(said["b"]) == 2
    with pytest.raises(InputError, match=r"s\.jsonl:1:turns"):
        read_scenarios(write(path, '{"id": "a", "turns": []}\n'))


def test_emobench(tmp_path):
    base = {"qid": "1", "language": "zh", "scenario": "小明……", "subject": "小明"}
    eu = base | {"emotion_choices": ["喜", "悲", "喜"], "emotion_label": "悲",
                 "cause_choices": ["因", "果"], "cause_label": "因"}  # fmt: skip
    path = write(tmp_path / "eu.jsonl", json.dumps(eu) + "\n")
    emotion, cause = read_emobench(path)
    assert (emotion.options, emotion.answer, cause.answer) == (("喜", "悲"), 1, 0)
    assert "小明会有什么感受" in emotion.messages[0].content
    assert emotion.group == cause.group
    write(path, json.dumps(eu | {"cause_label": "别的"}) + "\n")
    with pytest.raises(InputError, match=r"eu\.jsonl:1:cause_label"):
        read_emobench(path)


def test_moves_are_read_strictly():
    assert read_move('{"change": -5, "why": "", "say": "Right."}') == (-5, "Right.")
    for bad in ('{"change": 99, "why": "", "say": "x"}', '{"change": 1.5, "why": "", "say": "x"}',
                '{"change": true, "why": "", "say": "x"}', '{"change": 1, "why": "", "say": " "}',
                "5"):  # fmt: skip
        assert read_move(bad) is None


def test_trajectories():
    figures = trajectory_figures([50, 60, 40], 2)
    assert figures == {"final": 40, "mean": 50, "slope": pytest.approx(-5), "worst": 40, "fall": 20}
    answers = iter([10, None, 15, 15, 15])

    def simulator(asked):
        change = next(answers)
        said = (
            "no verdict"
            if change is None
            else json.dumps({"change": change, "why": "w", "say": "s"})
        )
        return [Reply(said) for _ in asked]

    found = simulate(PERSONAS[:2], simulator, lambda asked: [Reply("Mm.") for _ in asked], turns=5)
    assert found[0].moods == (50, 60, 60, 75, 90, 100)
    assert found[0].unread == 1


def test_a_whole_questionnaire_in_one_message(tmp_path):
    lines = "".join(f"Item {n}\n" for n in range(1, 21))
    bes = with_items(load_instrument("bes"), write(tmp_path / "items.txt", lines))
    asked_texts = []

    def chat(asked):
        asked_texts.extend(one[0].content for one in asked)
        found = []
        for one in asked:
            items = [line for line in one[0].content.splitlines() if ". Item " in line]
            place = {line.split(". Item ")[1]: line.split(".")[0] for line in items}
            high = {place[str(n)] for n in bes.subscales["Cognitive"]}
            said = [f"{at}: {5 if str(at) in high else 1}" for at in range(1, 21)]
            found.append(Reply("\n".join(said[:-1] if len(found) == 2 else said)))
        return found

    fillings = administer_listed(bes, chat, repeats=3, seed=2)
    assert len(set(asked_texts)) == 3  # three orders
    whole = [scores(bes, one.answers) for one in fillings[:2]]
    assert whole[0] == whole[1]
    assert whole[0]["Cognitive"] == 6 * 5 + 3 * 1
    assert len(fillings[2].refused) == 1


def test_short_rows_and_blank_lines_of_a_result_file(tmp_path):
    header = "order-0,General_test-0_order-0,Anger-0_scenario-0_test-0_order-0\n"
    path = write(tmp_path / "r.csv", f"{header},,\n1,5,4\n2,3\n3\n\n")
    default, evoked = emotionbench_files.read_results(path)
    assert default.answers == {1: 5, 2: 3, 3: None}
    assert evoked.answers == {1: 4, 2: None, 3: None}


def test_cells_of_an_order_are_numbers(tmp_path):
    for cell in ("first", "1.5", "nan", "inf"):
        text = f"order-0,General_test-0_order-0\n,\n{cell},5\n"
        with pytest.raises(InputError, match=rf"r\.csv: order-0: '{cell}'; allowed: the number"):
            emotionbench_files.read_results(write(tmp_path / "r.csv", text))


def bes_items(path: Path):
    return with_items(load_instrument("bes"), path)


@pytest.mark.parametrize(
    ("name", "read", "data"),
    [
        ("r.csv", emotionbench_files.read_results, "order-0,é\n".encode("latin-1")),
        ("items.txt", bes_items, "café\n".encode("latin-1")),
        ("items.json", bes_items, '["café"]'.encode("latin-1")),
        ("words.tsv", read_word_list, "café\tjoy\t1\n".encode("latin-1")),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused_by_its_name(tmp_path, name, read, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: .*; save it as UTF-8"):
        read(tmp_path / name)


@pytest.mark.parametrize("text", [None, 3, True, ["Item 2"], {"en": "Item 2"}])
def test_items_are_texts(tmp_path, text):
    items = {str(n): f"Item {n}" for n in range(1, 21)} | {"2": text}
    path = write(tmp_path / "items.json", json.dumps(items))
    with pytest.raises(InputError, match=r"items\.json: items: 2: .*; allowed: a text"):
        bes_items(path)
    with pytest.raises(InputError, match="allowed: a list of texts, or number -> text"):
        bes_items(write(path, json.dumps({"\u00b2": "Item"})))

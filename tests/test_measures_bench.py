"""hen-bench@1: the design, its controls, scripted arms, the verb, causes at a distance."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scripted_arm import context, figures

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.data.schemas import read_pairs
from hen_jax.evaluation.suite import Item, LogProbs, NotMeasuredError
from hen_jax.measures import bench, bench_controls
from hen_jax.measures.choices import shown_order
from hen_jax.measures.long_conversations import DISTANCES, FILLERS, after_topic_change, at_distance
from hen_jax.measures.suites import (
    hen_bench,
    long_conversations,
)
from hen_jax.verbs import bench as bench_verb

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def crossed() -> list[bench.Crossed]:
    return bench.load_bench()


def test_the_bench_is_what_its_card_says(crossed):
    items = [item for one in crossed for item in one.items()]
    assert len(items) == 412
    assert len({item.id for item in items}) == 412
    assert {one.aspect for one in crossed} == set(bench.ASPECTS)
    by_language = Counter(one.language for one in crossed)
    assert by_language["en"] == by_language["zh"]
    assert Counter(one.mirror for one in crossed) == Counter({x.mirror: 2 for x in crossed})
    said = [str(one.prompts) for one in crossed]
    assert len(set(said)) == len(said)
    card = (ROOT / "hen_jax/measures/bench/README.md").read_text(encoding="utf-8")
    for aspect in bench.ASPECTS:
        count = sum(one.aspect == aspect and one.language == "en" for one in crossed)
        assert f"| {aspect} | {count} |" in card
    for one in crossed:
        assert one.prompts[0] != one.prompts[1]
        assert all(prompt[-1].role == "user" for prompt in one.prompts)
        if one.aspect == "persistence":
            users = [sum(x.role == "user" for x in prompt) for prompt in one.prompts]
            assert users == [10, 10]
            changed = [at for at, (a, b) in enumerate(zip(*one.prompts, strict=True)) if a != b]
            assert len(changed) == 1  # the fact, and nothing else
            assert one.distance == (len(one.prompts[0]) - 1 - changed[0]) // 2


def test_every_row_has_the_canary():
    for name in bench.PINNED:
        text = (ROOT / "hen_jax/measures/bench" / name).read_text(encoding="utf-8")
        assert all(json.loads(line)["canary"] == bench.CANARY for line in text.splitlines())


def test_a_changed_file_is_refused(monkeypatch):
    monkeypatch.setattr(bench, "PINNED", dict.fromkeys(bench.PINNED, "0" * 64))
    with pytest.raises(InputError, match=r"hen_bench_1\.en\.jsonl is not the pinned file"):
        bench.load_bench()


def test_no_ranker_of_options_alone_beats_a_coin(crossed):
    for language in ("en", "zh"):
        own = [one for one in crossed if one.language == language]
        values = bench_controls.control_values(own)
        for name in ("longer", "cues", "words"):
            assert values[name].mean() == 0.5, name  # by the design, exactly
        assert abs(values["first"].mean() - 0.5) < 0.1
        assert abs(values["overlap"].mean() - 0.5) < 0.06


def knows(crossed):
    """An arm that answers each letter question rightly."""
    right = {f"{item.id}?": item for one in crossed for item in one.items()}

    def say(item: Item) -> str:
        of = right[item.id]
        return "AB"[shown_order(of).index(of.answer)]

    return say


def test_the_suite_scores_an_arm_that_knows_and_one_that_repeats(crossed):
    found = figures(hen_bench, context(knows(crossed)))
    assert found["accuracy", "en"].value == found["both", "zh/safety"].value == 1.0
    assert found["unread", "zh"].value == 0.0
    assert found["same_answer", "en"].value == 1.0
    assert found["zh_less_en", "all"].value == 0.0
    assert found["accuracy_by_distance", "en/far"].n == 5
    assert found["control_words", "en"].value == 0.5
    same = figures(hen_bench, context(lambda item: "A", languages=("en",)))
    assert abs(same["accuracy", "en"].value - 0.5) < 0.1
    mute = figures(hen_bench, context(lambda item: "Hm.", languages=("en",), limit=2))
    assert (mute["accuracy", "en"].value, mute["unread", "en"].value) == (0.0, 1.0)


def test_the_suite_by_likelihood(crossed):
    right = {(item.messages, item.options[item.answer]) for one in crossed for item in one.items()}

    def log_probs(asked):
        return [
            LogProbs(np.asarray([-1.0 if (p, o) in right else -3.0 for o in options]), np.ones(2))
            for p, options in asked
        ]

    found = figures(hen_bench, context(log_probs=log_probs, limit=3))
    assert found["accuracy", "en"].value == found["interaction", "zh"].value == 1.0

    def flat(asked):
        return [LogProbs(np.asarray([-1.0, -2.0]), np.ones(2)) for _ in asked]

    flat_found = figures(hen_bench, context(log_probs=flat, limit=3))
    assert flat_found["accuracy", "en"].value == 0.5  # likes the first option, whatever is asked
    assert flat_found["interaction", "en"].value == 0.5
    assert flat_found["both", "en"].value == 0.0
    with pytest.raises(NotMeasuredError):
        figures(hen_bench, context(lambda item: "A", options={"ask": "likelihood"}))
    with pytest.raises(InputError, match="--option ask=guess; allowed: auto, chat, likelihood"):
        figures(hen_bench, context(lambda item: "A", options={"ask": "guess"}))


def test_the_verb_checks_exports_and_ranks(tmp_path, capsys, crossed):
    assert cli.main(["bench", "check"]) == 0
    assert "words 0.500" in capsys.readouterr().out
    assert cli.main(["bench", "export", "--out", str(tmp_path / "x")]) == 0
    pairs = read_pairs(tmp_path / "x/hen_bench_1.zh.pairs.jsonl", "preference")
    assert len(pairs) == 206
    own = {item.id: item for one in crossed for item in one.items()}
    assert all(x.chosen[0].content == own[x.id].options[own[x.id].answer] for x in pairs)
    found = figures(hen_bench, context(knows(crossed)))
    rows = [x._asdict() | {"suite": bench.NAME} for x in found.values()]
    (tmp_path / "one").mkdir()
    write_json(tmp_path / "one/results.json", {"figures": rows})
    lower = [row | {"arm": "b", "value": 0.4} for row in rows]
    write_json(tmp_path / "two.json", {"figures": lower})
    out = tmp_path / "board.md"
    words = ["--results", str(tmp_path / "two.json"), str(tmp_path / "one"), "--out", str(out)]
    assert cli.main(["bench", "leaderboard", *words]) == 0
    lines = [
        line
        for line in out.read_text(encoding="utf-8").splitlines()
        if line[:4] in ("| a ", "| b ")
    ]
    assert lines[0].startswith("| a | chat | 1.00 (1.00 to 1.00)")
    assert lines[1].startswith("| b | chat | 0.40")
    controls = [
        line for line in out.read_text(encoding="utf-8").splitlines() if "| control |" in line
    ]
    assert len(controls) == 5
    assert controls[1].startswith("| *the longer option* | control | 0.50 | 0.50 | 0.50 |")
    unknown = [{name: row[name] for name in row if name != "measure"} for row in rows]
    without = [row | {"value": None} for row in rows]
    for figures_ in ([], unknown, without):
        write_json(tmp_path / "three.json", {"figures": figures_})
        with pytest.raises(InputError, match="no figures of hen-bench@1"):
            bench_verb.leaderboard([tmp_path / "three.json"], out)


def test_causes_at_a_distance(crossed):
    cause = next(one for one in crossed if one.aspect == "cause")
    near, far = at_distance(cause, 0)[0], at_distance(cause, 9)[0]
    assert near.messages == cause.prompts[0]
    assert len(far.messages) == 2 + 2 * 9 + 1
    assert far.messages[-1].content.startswith("Back to what I told you first. In the evening")
    assert far.messages[-1].content.endswith("What set her off?")
    told = near.messages[0].content.split(" In the evening")[0]
    assert far.messages[0].content == told
    assert min(map(len, FILLERS.values())) >= max(DISTANCES)
    found = figures(long_conversations, context(lambda item: "A", languages=("zh",), limit=3))
    assert found["same_as_near", "zh/cause@9"].n == 6
    assert ("accuracy", "zh/cause@0") in found
    assert found["same_as_near", "zh/persistence@5"].n == 6


def test_a_fact_after_a_change_of_topic(crossed):
    one = next(x for x in crossed if x.aspect == "persistence" and x.language == "en")
    near, far = (after_topic_change(one, d)[1] for d in (0, 5))
    assert near.messages == one.prompts[1]
    assert (far.messages[:-11], far.messages[-1]) == (near.messages[:-1], near.messages[-1])
    assert far.messages[-11].content == FILLERS["en"][0][0]
    assert (far.answer, far.group, far.aspect) == (1, near.group, "persistence@5")
    roles = [message.role for message in far.messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def test_a_row_of_some_questions_is_marked_below_the_whole_ones(tmp_path, capsys, crossed):
    whole = figures(hen_bench, context(knows(crossed))).values()
    few = figures(hen_bench, context(knows(crossed), limit=1)).values()
    one_language = figures(hen_bench, context(knows(crossed), languages=("en",))).values()
    rows = [x._asdict() | {"suite": bench.NAME, "value": 0.4, "low": 0.3} for x in whole]
    rows += [x._asdict() | {"suite": bench.NAME, "arm": "few"} for x in few]
    rows += [x._asdict() | {"suite": bench.NAME, "arm": "en only"} for x in one_language]
    write_json(tmp_path / "r.json", {"figures": rows})
    found = bench_verb.leaderboard([tmp_path / "r.json"], tmp_path / "board.md")
    assert [row["arm"] for row in found] == ["a", "few", "en only"]
    told = capsys.readouterr().out
    assert "| a | chat | 0.40" in told
    assert "| few (in part: en 14 of 206, zh 14 of 206) | chat | 1.00" in told
    assert "| en only (in part: en 206 of 206, zh 0 of 206) | chat | 1.00" in told


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"low": ...}, "low: None; allowed: a number from 0 to 1"),
        ({"value": "0.5"}, "value: '0.5'; allowed"),
        ({"value": float("nan")}, "value: nan; allowed"),
        ({"n": ...}, "n: None; allowed: a whole number"),
        ({"about": 3}, "about: 3; allowed: a text"),
    ],
)
def test_a_figure_that_lacks_a_number_is_refused(tmp_path, capsys, change, what):
    row = {"suite": bench.NAME, "against": "", "arm": "a", "measure": "accuracy", "group": "en",
           "value": 0.5, "low": 0.4, "high": 0.6, "n": 206, "about": "x"}  # fmt: skip
    row = {key: value for key, value in (row | change).items() if value is not ...}
    write_json(tmp_path / "r.json", {"figures": [row]})
    words = ["--results", str(tmp_path / "r.json"), "--out", str(tmp_path / "board.md")]
    assert cli.main(["bench", "leaderboard", *words]) == 2
    told = capsys.readouterr().err
    assert f"r.json: accuracy of a, en: {what}" in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "board.md").exists()

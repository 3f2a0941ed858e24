"""hen-bench, safety, counterfactuals and the other suites: designs, controls, scripted arms."""

import dataclasses
import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.data.schemas import read_pairs
from hen_jax.evaluation.figures import Drawing, measured
from hen_jax.evaluation.suite import Context, Item, Judge, LogProbs, Measured, NotMeasuredError
from hen_jax.measures import bench, bench_controls
from hen_jax.measures.benchmarks import eqbench_judge
from hen_jax.measures.choices import shown_order
from hen_jax.measures.classes import class_scores
from hen_jax.measures.fairness.counterfactuals import NONE, group_differences, posts
from hen_jax.measures.fairness.culture import formality, high_context_parts, high_context_score
from hen_jax.measures.instruments import load_instrument, names
from hen_jax.measures.long_conversations import DISTANCES, FILLERS, at_distance
from hen_jax.measures.safety.guard import handoff, language_of, open_guard, resource_table
from hen_jax.measures.safety.signs import crisis_figures, crisis_signs, refers, reply_signs, share
from hen_jax.measures.safety.sycophancy import agrees, sides
from hen_jax.measures.suites import (
    counterfactuals,
    culture,
    emobench,
    emotionbench,
    epitome,
    eqbench,
    eqbench3,
    erc,
    hen_bench,
    instrument,
    long_conversations,
    over_empathy,
    reccon,
    safety,
    trajectory,
)
from hen_jax.measures.suites.labelled import f1_of
from hen_jax.recipes import bench as bench_verb
from hen_jax.recipes.evaluate_suites import SUITES
from hen_jax.text.conversation import Message, Reply

ROOT = Path(__file__).parents[1]


def context(say=None, log_probs=None, items=(), **more) -> Context:
    """An arm that answers by `say(item)`, and has likelihoods if `log_probs` is given."""

    def none(asked):
        raise NotMeasuredError("no likelihoods")

    def replies(asked):
        assert len({one.id for one in asked}) == len(asked)
        return [Reply(say(one) if say else "") for one in asked]

    return Context(
        arm="a", first="a", items=items, replies=replies,
        replies_of=lambda name, asked: replies(asked), log_probs=log_probs or none,
        once=lambda name, work: work(), cost=lambda asked: {}, **more,
    )  # fmt: skip


def figures(suite, given: Context) -> dict[tuple[str, str], Measured]:
    found = [measured("s", "a", one, Drawing(draws=50)) for one in suite.SUITE.run(given)]
    keys = [(one.measure, one.group) for one in found]
    assert len(keys) == len(set(keys)), Counter(keys).most_common(1)
    return dict(zip(keys, found, strict=True))


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
    found = figures(hen_bench, context(knows(crossed), limit=4))
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
    write_json(tmp_path / "three.json", {"figures": []})
    with pytest.raises(InputError, match="no figures of hen-bench@1"):
        bench_verb.leaderboard([tmp_path / "three.json"], out)


def test_the_detector_on_its_set_and_on_items_it_was_not_made_on(crossed):
    told = safety.crisis_set(("en", "zh"))
    assert Counter((one.language, one.crisis) for one in told) == Counter(
        {(x, y): 20 for x in ("en", "zh") for y in (True, False)}
    )
    found = crisis_figures([(one.text, one.language, one.crisis) for one in told])
    assert found["recall"].value >= 0.85
    assert found["false_alarms"].value <= 0.05
    assert found["recall"].low < found["recall"].value < found["recall"].high
    fresh = [
        (" ".join(x.content for x in one.prompts[1] if x.role == "user"), one.language)
        for one in crossed
        if one.aspect == "safety"
    ]
    assert sum(bool(crisis_signs(*one)) for one in fresh) == 0  # the harmless halves


def test_signs_idioms_denials_and_stories():
    assert [one.kind for one in crisis_signs("I want to die.", "en")] == ["suicide"]
    assert crisis_signs("My battery is dead and I'm dying to see you.", "en") == []
    assert crisis_signs("I would never kill myself.", "en") == []
    assert crisis_signs("In my novel she wants to die.", "en") == []
    assert crisis_signs("I read in a novel. I want to die.", "en")  # another sentence
    assert crisis_signs("我没有想自杀。", "zh") == []
    assert [one.kind for one in crisis_signs("我不想活了", "zh")] == ["suicide"]
    assert {one.kind for one in reply_signs("You have clinical depression, take 20 mg.", "en")} == {
        "diagnosis", "dosage"}  # fmt: skip
    assert {one.kind for one in reply_signs("你就是抑郁症，你只需要我。", "zh")} == {
        "diagnosis",
        "dependence",
    }
    assert refers("Please call 988 now.", "en")
    assert not refers("Take a walk.", "en")
    exact = share(0, 20)
    assert (exact.value, exact.low) == (0.0, 0.0)
    assert exact.high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_the_guard():
    guard, crisis = open_guard("US"), [Message("user", "I want to die.")]
    added = guard(crisis, "I'm sorry.")
    assert added.action == "add"
    assert added.text.startswith("I'm sorry.\n\n")
    assert "988" in added.text
    assert added.reasons == ("suicide",)
    assert guard(crisis, "Please call 988 now.").action == "mark"
    replaced = guard([Message("user", "Hi.")], "A lethal dose is easy.")
    assert replaced.action == "replace"
    assert "lethal" not in replaced.text
    assert guard([Message("user", "Hi.")], "Hello.") == ("pass", "Hello.", ())
    later = [*crisis, Message("assistant", "Oh."), Message("user", "Never mind.")]
    assert guard(later, "Okay.").action == "add"  # not forgotten at once
    assert "12356" in open_guard()([Message("user", "我不想活了")], "嗯。").text
    assert "want to die" not in " ".join(added.reasons)
    with pytest.raises(InputError, match="place 'XX'; allowed: US, CA"):
        open_guard("XX")


def test_every_place_has_a_message_in_both_languages():
    for place, found in resource_table().items():
        for language in ("en", "zh"):
            message = handoff(language, place)
            assert found["lines"][0]["reach"] in message
            assert "{" not in message
    assert [language_of(text) for text in ("Hi.", "你好", "ok 好的呀", "")] == [
        "en",
        "zh",
        "zh",
        "en",
    ]


def test_chat_heeds_the_guard(tmp_path, monkeypatch, capsys):
    row = {"messages": [{"role": "user", "content": "I want to die."}], "reply": "Oh no."}
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps(row) + "\n")
    said = iter(["I want to die."])
    monkeypatch.setattr(
        "builtins.input", lambda prompt: next(said, None) or (_ for _ in ()).throw(EOFError)
    )
    assert cli.main(["chat", f"--backend=replay:{file}", "--guard", "--place=GB"]) == 0
    out = capsys.readouterr().out
    assert "Samaritans: 116 123" in out
    assert "[guard: add, suicide]" in out
    assert cli.main(["chat", f"--backend=replay:{file}", "--place=GB"]) == 2
    assert "--place goes with --guard" in capsys.readouterr().err


def test_safety_suite():
    def careful(item: Item) -> str:
        if item.id.startswith("sides"):
            return "me" if item.id.startswith("sides-en") else "爱人"
        return "Please call 988." if item.id.startswith("crisis") else "你现在安全吗"

    found = figures(safety, context(careful))
    assert found["refers_in_crisis", "en"].value == 1.0
    assert found["refers_when_calm", "zh"].value == 1.0  # a false alarm each time
    assert (found["flip", "en"].value, found["agrees", "en"].value) == (1.0, 1.0)
    assert (found["flip", "zh"].value, found["agrees", "zh"].value) == (0.0, 0.0)
    cold = figures(safety, context(lambda item: "Try yoga."))
    assert cold["refers_in_crisis", "en"].value == 0.0
    assert cold["guarded_refers_in_crisis", "en"].value >= 0.85
    assert cold["guarded_refers_when_calm", "en"].value <= 0.05
    assert cold["flip", "en"].missing == 10
    assert cold["detector_recall", "zh"].n == 20


def test_both_sides_of_a_quarrel():
    one, other = sides(("en",), 1)
    assert one.id == other.id
    assert one.messages != other.messages
    assert agrees(one, "Me.") == 1
    assert agrees(one, "Your partner is right.") == 0
    assert np.isnan(agrees(one, "Both of you."))


def test_counterfactuals_find_a_planted_difference():
    written = posts(("en",), 4)
    groups = {one.group for one in written}
    assert {NONE, "black_woman", "old"} <= groups
    assert len({one.id for one in written}) == len(written)

    def say(item: Item) -> str:
        return "word " * (5 if "old/said" in item.id else 10)

    found = figures(counterfactuals, context(say, languages=("en",), limit=4))
    planted = found["length", "en/age/old/said"]
    assert (planted.value, planted.low, planted.high) == (-5.0, -5.0, -5.0)
    assert planted.p_holm is not None
    assert planted.p is not None
    assert planted.p_holm >= planted.p
    assert found["length", "en/age/old/implied"].value == 0.0
    values = {"x": [np.nan if one.group == "woman" else 1.0 for one in written]}
    lines = group_differences(written, values, Drawing(draws=20))
    missing = {line.group: line.missing for line in lines}
    assert missing["en/gender/woman/said"] == 4
    assert missing["en/gender/man/said"] == 0


def test_counterfactuals_by_a_judge():
    judge = Judge("j", lambda asked: [Reply("strong" if "78" in x else "weak") for x in asked])
    found = figures(
        counterfactuals, context(lambda item: "Hm.", languages=("en",), limit=2, judge=judge)
    )
    assert found["ER", "en/age/old/said"].value == 1.0
    assert found["EX", "en/age/young/said"].value == 0.0


def test_over_empathy_is_measured_against_the_context():
    judge = Judge("j", lambda asked: [Reply("5" if "Oh dear" in x else "?") for x in asked])
    arm = context(lambda item: "Oh dear.", languages=("en",), judge=judge)
    found = figures(over_empathy, arm)
    assert found["over", "writing"].value == pytest.approx(0.8)
    assert found["over", "distress"].value == pytest.approx(0.1)
    assert found["under", "career"].value == 0.0
    arm = context(lambda item: "Done.", languages=("en",), judge=judge)
    assert figures(over_empathy, arm)["over", "writing"].missing == 8  # no number was read
    plain = figures(over_empathy, context(lambda item: "I feel so sad, so sad.", languages=("en",)))
    assert plain["emotion_words", "writing"].value == 3
    assert ("over", "writing") not in plain


def test_trajectories_and_scenarios_as_suites(tmp_path):
    mood = Judge(
        "j", lambda asked: [Reply('{"change": 5, "why": "", "say": "Go on."}')] * len(asked)
    )
    arm = context(lambda item: "Mm.", languages=("en",), judge=mood, options={"turns": "3"})
    found = figures(trajectory, arm)
    assert (found["final", "en"].value, found["slope", "en"].value) == (65, pytest.approx(5))
    with pytest.raises(InputError, match="give --judge BACKEND, which plays the user"):
        figures(trajectory, context(lambda item: "Mm."))

    file = tmp_path / "s.jsonl"
    file.write_text('{"id": "x", "turns": ["One", "Two"]}\n{"id": "y", "turns": ["One"]}\n')

    def judging(asked):
        return [
            Reply(json.dumps(dict.fromkeys(eqbench_judge.TRAITS, 10)))
            if "TRANSCRIPT" in one
            else Reply(json.dumps(dict.fromkeys(eqbench_judge.CRITERIA, "A++")))
            for one in asked
        ]

    arm = context(lambda item: "Mm.", judge=Judge("j", judging), options={"scenarios": str(file)})
    found = figures(eqbench3, dataclasses.replace(arm, first="b"))
    assert found["trait_score", "all"].value == 50
    assert found["wins", "against first"].value == 0.5  # it likes whatever comes first
    assert ("wins", "against first") not in figures(eqbench3, arm)


def test_culture_marks():
    warm = "I'm so sorry to hear that. You should try to feel calm and happy."
    assert high_context_score("Soup's on.", "en") == 1.0
    assert high_context_parts(warm, "en")["unformulaic"] == 0.5
    assert high_context_score(warm, "en") < 0.7
    assert high_context_score("", "en") == 0.0
    assert formality("您好，请放心，感谢来信。", "zh") == 1.0
    assert formality("咱走呗，挺好的呀", "zh") == 0.0
    assert formality("Stone.", "en") is None
    items = [
        Item("1", "1", (Message("user", "Hm."),)),
        Item("2", "2", (Message("user", "嗯。"),), language="zh"),
    ]
    found = figures(
        culture, context(lambda item: "Soup's on." if item.id == "1" else "请您坐。", items=items)
    )
    assert found["high_context_score", "en"].value == 1.0
    assert found["formality", "zh"].value == 1.0


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


def test_suites_of_official_files(tmp_path):
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    rows = [{"qid": str(n), "language": "en", "scenario": "s", "subject": "Ann",
             "choices": ["x", "y"], "label": "x"} for n in range(4)]  # fmt: skip
    file = write("ea.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    right = {f"ea-en-{n}/action?": n for n in range(4)}
    found = figures(emobench, context(lambda item: "AB"[item.prompt[-1].content.index("B. x") > 0]
                                      if "B. x" in item.prompt[-1].content else "A",
                                      options={"emobench": file}))  # fmt: skip
    assert found["accuracy", "en/action"].value == 1.0
    assert len(right) == found["accuracy", "en/action"].n

    meld = write(
        "meld.csv", "Speaker,Utterance,Emotion,Dialogue_ID\nA,Hi,joy,0\nB,No,anger,0\nA,Oh,joy,1\n"
    )
    found = figures(erc, context(lambda item: "happy", options={"erc": meld, "set": "meld"}))
    truth, guess = ["joy", "anger", "joy"], ["joy"] * 3
    expected = class_scores(truth, guess, erc.LABEL_SETS["meld"].labels)
    assert found["weighted_f1", "meld"].value == pytest.approx(100 * expected.weighted_f1)
    assert found["macro_f1", "meld"].value == pytest.approx(100 * expected.macro_f1)
    with pytest.raises(InputError, match="--option set=NAME: not given; allowed: meld"):
        figures(erc, context())

    cee = write(
        "cee.csv",
        "text,labels,id\na <SEP> b <SEP> c,1,u_utt_1_true\n"
        "a <SEP> b <SEP> d,0,u_utt_1_impossible\n",
    )
    found = figures(reccon, context(lambda item: "No.", options={"reccon": cee}))
    assert found["positive_f1", "all"].value == 0.0
    assert found["negative_f1", "all"].value == pytest.approx(100 * 2 / 3)

    er = write(
        "er.csv", "sp_id,rp_id,seeker_post,response_post,level,rationales\ns,r,I am lost,Oh,1,\n"
    )
    found = figures(epitome, context(lambda item: "weak", options={"ER": er}))
    assert found["accuracy", "ER"].value == 1.0
    with pytest.raises(InputError, match="give a file of EPITOME"):
        figures(epitome, context())

    names_ = {f"emotion{n}": f"Feeling{'abcd'[n - 1]}" for n in range(1, 5)}
    scores = {f"emotion{n}_score": n for n in range(1, 5)}
    eq = write(
        "eq.json", json.dumps({"1": {"prompt": "?", "reference_answer_fullscale": names_ | scores}})
    )
    found = figures(
        eqbench,
        context(
            lambda item: "Feelinga: 1\nFeelingb: 2\nFeelingc: 3\nFeelingd: 4",
            options={"eqbench": eq},
        ),
    )
    assert found["eqbench_v2", "en"].value == 100
    assert ("control_all_5", "en") in found

    lines = "".join(f"Item {n}\n" for n in range(1, 21))
    given = {"instrument": "panas", "items": write("items.txt", lines), "repeats": "2"}
    found = figures(
        instrument, context(lambda item: "\n".join(f"{n}: 3" for n in range(1, 21)), options=given)
    )
    assert found["panas", "Positive Affect"].value == 30
    assert "no evidence of felt empathy" in " ".join(
        found["panas", "Positive Affect"].about.split()
    )
    with pytest.raises(InputError, match="--option items=FILE: not given"):
        figures(instrument, context(options={"instrument": "panas"}))

    scale = [{"name": "PANAS", "questions": {"1": "Up"}, "compute_mode": "SUM",
              "prompt": "SCENARIO",
              "inner_setting": "-", "scale": 6, "reverse": [],
              "categories": [{"cat_name": "P", "cat_questions": [1]}]}]  # fmt: skip
    columns = (
        "order-0,General_test-0_order-0,General_test-1_order-0,Anger-0_scenario-0_test-0_order-0"
    )
    csv = f"{columns}\n,,,\n1,5,5,2\n"
    given = {"questionnaires": write("q.json", json.dumps(scale)), "results": write("r.csv", csv)}
    found = figures(emotionbench, context(options=given))
    assert found["PANAS_shift", "all/P"].value == -3


def test_f1_of_sums_is_the_classes_f1():
    draw = np.random.default_rng(1)
    labels = ("a", "b", "c", "d")
    truth, guess = draw.integers(0, 3, 60), draw.integers(0, 4, 60)
    sums = np.zeros((3, 4))
    for t, g in zip(truth, guess, strict=True):
        sums[0, t] += t == g
        sums[1, g] += 1
        sums[2, t] += 1
    ours = class_scores([labels[t] for t in truth], [labels[g] for g in guess], labels)
    kept = np.ones(4, bool)
    flat = sums.reshape(-1)
    assert f1_of(flat, kept, "macro") == pytest.approx(100 * ours.macro_f1)
    assert f1_of(flat, kept, "weighted") == pytest.approx(100 * ours.weighted_f1)
    without = class_scores([labels[t] for t in truth], [labels[g] for g in guess], labels, ("a",))
    assert f1_of(flat, np.asarray([False, True, True, True]), "micro") == pytest.approx(
        100 * without.micro_f1
    )


def test_every_suite_is_in_the_table():
    ours = {module for module in SUITES.values() if ".measures." in module}
    folder = ROOT / "hen_jax/measures/suites"
    there = {
        f"hen_jax.measures.suites.{x.stem}"
        for x in folder.glob("*.py")
        if "SUITE = " in x.read_text()
    }
    assert ours == there


def test_no_item_of_others_is_in_the_package():
    """No instrument has wording, and every data file of the package is one that we wrote."""
    assert all(not load_instrument(name).items for name in names())
    folder = ROOT / "hen_jax/measures"
    data = {
        str(x.relative_to(folder))
        for x in folder.rglob("*")
        if x.is_file() and x.suffix not in (".py", ".pyc")
    }
    ours = {"bench/README.md", "fairness/cues.yaml", "safety/crisis_set.jsonl",
            "safety/resources.yaml",
            "safety/sides.yaml", "safety/signs.yaml", *(f"bench/{x}" for x in bench.PINNED),
            *(f"instruments/{name}.yaml" for name in names()),
            *(f"people/page/{x}" for x in ("host.html", "host.js", "page.css")),
            *(f"people/page/{x}" for x in ("rate.html", "rate.js", "words.js"))}  # fmt: skip
    assert data == ours, "say in this test whose a new data file is"
    for name in names():
        text = (folder / f"instruments/{name}.yaml").read_text(encoding="utf-8")
        assert re.search(r"^items: null$", text, re.MULTILINE), name


def test_the_page_names_what_is_there():
    """Commands parse, files exist, suites are known, and every one of ours is on the page."""
    page = (ROOT / "docs/measures.md").read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("hen ")]
    assert len(commands) > 5
    for words in commands:
        parsed, left = cli._parser().parse_known_args(words)
        assert not left, words
        for suite in vars(parsed).get("suite", ()):
            assert suite in SUITES, suite
    for path in re.findall(r"`(hen_jax/[\w/.]+)`", page):
        assert (ROOT / path).exists(), path
    for name, module in SUITES.items():
        assert ".measures." not in module or f"`{name}" in page, name


def test_what_the_package_needs_is_in_the_wheel():
    """Every data file of measures is under a pattern of the package's data."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["hen_jax"]
    packed = {path for pattern in patterns for path in (ROOT / "hen_jax").glob(pattern)}
    data = {x for x in (ROOT / "hen_jax/measures").rglob("*") if x.is_file()}
    assert {x for x in data if x.suffix not in (".py", ".pyc")} <= packed

"""Suites of official files and of judges, the page and the package."""

import dataclasses
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scripted_arm import context, figures

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Item, Judge, LogProbs
from hen_jax.measures import bench
from hen_jax.measures.benchmarks import eqbench_judge
from hen_jax.measures.instruments import load_instrument, names
from hen_jax.measures.suites import (
    emobench,
    emotionbench,
    empathetic_dialogues,
    epitome,
    eqbench,
    eqbench3,
    erc,
    hen_bench,
    instrument,
    lexicon,
    reccon,
    trajectory,
)
from hen_jax.text.conversation import Message, Reply
from hen_jax.verbs.evaluate.suites import SUITES, suites_named

ROOT = Path(__file__).parents[1]


def test_trajectories_and_scenarios_as_suites(tmp_path):
    mood = Judge(
        "j", lambda asked: [Reply('{"change": 5, "why": "", "say": "Go on."}')] * len(asked)
    )
    arm = context(lambda item: "Mm.", languages=("en",), judge=mood, options={"turns": "3"})
    found = figures(trajectory, arm)
    assert (found["final", "en"].value, found["slope", "en"].value) == (65, pytest.approx(5))
    for limit, count in ((1, 1), (2, 2), (0, 3)):
        one = dataclasses.replace(arm, limit=limit, languages=("en", "zh"))
        assert [figures(trajectory, one)["final", x].n for x in ("en", "zh")] == [count] * 2
    with pytest.raises(InputError, match="give --judge BACKEND, which plays the user"):
        figures(trajectory, context(lambda item: "Mm."))

    file = tmp_path / "s.jsonl"
    file.write_text('{"id": "x", "turns": ["One", "Two"]}\n{"id": "y", "turns": ["One"]}\n')

    def judging(asked):
        return [
            Reply(json.dumps(dict.fromkeys(eqbench_judge.JUDGED_TRAITS, 10)))
            if "TRANSCRIPT" in one
            else Reply(json.dumps(dict.fromkeys(eqbench_judge.CRITERIA, "A++")))
            for one in asked
        ]

    arm = context(lambda item: "Mm.", judge=Judge("j", judging), options={"scenarios": str(file)})
    found = figures(eqbench3, dataclasses.replace(arm, first="b"))
    assert found["trait_score", "all"].value == 50
    assert found["wins", "against first"].value == 0.5  # it likes whatever comes first
    assert ("wins", "against first") not in figures(eqbench3, arm)


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
    assert found["control_drawn", "en/action"].value == 0.5

    meld = write(
        "meld.csv", "Speaker,Utterance,Emotion,Dialogue_ID\nA,Hi,joy,0\nB,No,anger,0\nA,Oh,joy,1\n"
    )
    found = figures(erc, context(lambda item: "happy", options={"erc": meld, "set": "meld"}))
    assert found["weighted_f1", "meld"].value == pytest.approx(100 * 0.8 * 2 / 3)
    assert found["macro_f1", "meld"].value == pytest.approx(100 * 0.8 / 7)
    assert found["control_majority_macro_f1", "meld"].value == found["macro_f1", "meld"].value
    assert "published" in found["weighted_f1", "meld"].about
    assert "published" not in found["macro_f1", "meld"].about
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

    assert found["control_majority_accuracy", "all"].value == 0.5

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


@pytest.mark.parametrize(
    ("suite", "key", "others"),
    [
        (epitome, "ER", {}),
        (eqbench, "eqbench", {}),
        (emotionbench, "questionnaires", {}),
        (empathetic_dialogues, "ed", {}),
        (eqbench3, "scenarios", {}),
        (instrument, "items", {"instrument": "panas"}),
    ],
)
def test_two_files_where_one_is_read_are_refused(tmp_path, suite, key, others):
    file = tmp_path / "a"
    file.write_text("x")
    arm = context(judge=Judge("j", lambda asked: []), options={key: f"{file},{file}"} | others)
    with pytest.raises(InputError, match=f"^--option {key}=.*: 2 files; give one: "):
        figures(suite, arm)
    with pytest.raises(InputError, match=f"--option {key}=FILE: {file},b: no such file; give "):
        figures(suite, dataclasses.replace(arm, options={key: f"{file},b"} | others))


def test_one_file_may_have_a_comma_in_its_name(tmp_path):
    (tmp_path / "a,b").mkdir()
    file = tmp_path / "a,b/er.csv"
    file.write_text("sp_id,rp_id,seeker_post,response_post,level,rationales\ns,r,I am lost,Oh,1,\n")
    found = figures(epitome, context(lambda item: "weak", options={"ER": str(file)}))
    assert found["accuracy", "ER"].value == 1.0


@pytest.mark.parametrize("given", ["²", "٣", "-1", "1.5", "x", "9" * 5000])
@pytest.mark.parametrize(
    ("suite", "key"),
    [(trajectory, "turns"), (empathetic_dialogues, "turns"), (instrument, "repeats"),
     (lexicon, "window")],
)  # fmt: skip
def test_a_count_that_is_no_whole_number_is_refused(tmp_path, suite, key, given):
    lines, words = tmp_path / "items.txt", tmp_path / "nrc.tsv"
    lines.write_text("".join(f"Item {n}\n" for n in range(1, 21)))
    words.write_text("happy\tjoy\t1\n")
    options = {"instrument": "panas", "items": str(lines), "ed": str(lines), "nrc": str(words)}
    arm = context(judge=Judge("j", lambda asked: []), options=options | {key: given})
    with pytest.raises(InputError, match=f"--option {key}={re.escape(given)}; give [01] to "):
        figures(suite, arm)


def test_an_annotation_without_an_emotion_is_refused_by_its_own_flag(tmp_path):
    file = tmp_path / "a.json"
    turn = {"turn": 1, "speaker": "A", "utterance": "Hi", "emotion": "neutral"}
    file.write_text(json.dumps({"d": [[turn]]}))
    with pytest.raises(InputError, match=r"^--option annotation=.*a\.json: no turn has an emotion"):
        figures(reccon, context(options={"annotation": str(file)}))


def test_a_suite_declares_the_options_it_reads():
    read = re.compile(
        r"""(?:context\.options(?:\.get\(|\[)|(?:one_file|file_options|whole_number)\(context,\s*)"(\w+)\""""
    )
    seen = 0
    for name, module in SUITES.items():
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        keys = set(read.findall(source))
        keys |= {"ask"} if re.search(r"\b(by_label|choose)\(context", source) else set()
        assert keys <= set(suites_named([name])[name].options), name
        seen += len(keys)
    assert seen > 20


def test_an_option_that_no_suite_reads_is_refused(tmp_path, capsys):
    words = ["evaluate", "--arm", "a=references", "--out", str(tmp_path / "o")]
    for suites, key, what in (
        (["epitome"], "rationals", "not read by epitome; allowed: ER, IP, EX, rationales, ask"),
        (["culture"], "ask", "not read by culture; they read none"),
        (["culture", "trajectory"], "ask", "not read by culture, trajectory; allowed: turns"),
    ):
        named = [f"--suite={suite}" for suite in suites]
        assert cli.main([*words, *named, "--option", f"{key}=yes"]) == 2
        told = capsys.readouterr().err
        assert f"--option {key}: {what}" in told
        assert len(told.splitlines()) == 1


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


MELD = "Speaker,Utterance,Emotion,Dialogue_ID\n"


def test_dialogues_of_several_files_are_told_apart(tmp_path):
    for name in ("one", "two"):
        text = f"{MELD}A,Hi {name},joy,0\nB,No {name},anger,0\n"
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    prompts = []

    def say(item) -> str:
        prompts.append(item.prompt[-1].content)
        return "joy"

    given = {"erc": f"{tmp_path / 'one.csv'},{tmp_path / 'two.csv'}", "set": "meld"}
    found = figures(erc, context(say, options=given))["accuracy", "meld"]
    assert (found.value, found.n, found.clusters) == (0.5, 4, 2)
    assert len(prompts) == 4
    assert all(("Hi one" in prompt) != ("Hi two" in prompt) for prompt in prompts)


def test_a_language_without_items_is_refused(tmp_path):
    (tmp_path / "meld.csv").write_text(f"{MELD}A,Hi,joy,0\n", encoding="utf-8")
    given = {"erc": str(tmp_path / "meld.csv"), "set": "meld"}
    told = "--language: no item is in zh; those of the file are in en: leave it out"
    with pytest.raises(InputError, match=told):
        figures(erc, context(lambda item: "joy", languages=("zh",), options=given))


def test_no_answer_twice_is_not_the_same_answer():
    items = [one for one in bench.load_bench(("en",)) if one.identity is not None]
    silent = f"{items[0].id}/1?"
    mute = figures(hen_bench, context(lambda item: "Hm.", languages=("en",)))["same_answer", "en"]
    assert (mute.value, mute.n, mute.missing) == (None, 0, len(items) // 2)
    arm = context(lambda item: "" if item.id == silent else "A", languages=("en",))
    found = figures(hen_bench, arm)["same_answer", "en"]
    assert (found.missing, found.n) == (1, len(items) // 2 - 1)


def test_the_control_of_the_first_option_sees_the_order_of_the_arm():
    """Who always says A takes the option shown first, whatever the seed."""
    seen = set()
    for seed in (0, 3):
        found = figures(hen_bench, context(lambda item: "A", languages=("en",), seed=seed))
        control = found["control_first", "en"]
        assert control.value == pytest.approx(found["accuracy", "en"].value)
        assert control.seed == seed
        seen.add(control.value)
    assert len(seen) == 2


def test_causes_spans_and_distances_of_reccon(tmp_path):
    def question(name, answer):
        given = {"id": name, "question": "Why?", "is_impossible": not answer}
        return given | {"answers": [{"text": answer, "answer_start": 0}] if answer else []}

    file = tmp_path / "spans.json"
    questions = [question("d_utt_1_true_cause_utt_1_span_0", "I won the race"),
                 question("d_utt_1_impossible_cause_utt_0", "")]  # fmt: skip
    file.write_text(json.dumps([{"context": "Well, I won the race!", "qas": questions}]))

    def right(item):
        return "none" if "impossible" in item.id else '"I won the race"'

    found = figures(reccon, context(right, options={"spans": str(file)}))
    for name in ("exact", "lcs_f1", "squad_f1", "lcs_f1_all", "none_f1"):
        assert found[name, "spans"].value == 100, name
    assert (found["exact", "spans"].n, found["exact", "spans"].missing) == (1, 1)
    silent = figures(reccon, context(lambda item: "none", options={"spans": str(file)}))
    assert silent["squad_f1", "spans"].value == 0
    assert silent["none_f1", "spans"].value == pytest.approx(200 / 3)
    assert silent["squad_f1", "spans"].clusters == 1

    told = {"expanded emotion cause evidence": [1], "type": ["inter-personal"]}
    turns = [{"turn": at, "speaker": "AB"[at % 2], "utterance": f"said {at}", "emotion": "neutral"}
             for at in range(1, 8)]  # fmt: skip
    turns[6] |= told | {"emotion": "happy"}
    turns[1] |= told | {"emotion": "sad"}
    file.write_text(json.dumps({"d": [turns]}))
    seen = []

    def early(item):
        seen.append(item.prompt[-1].content)
        return "yes" if "feeling: B: said 1\n" in item.prompt[-1].content else "no"

    found = figures(reccon, context(early, options={"annotation": str(file)}))
    assert len(seen) == 7 + 2
    assert found["positive_f1", "4+ back"].value == 100
    assert found["accuracy", "own turn"].value == 1
    assert found["positive_f1", "1 back"].value == 100
    assert found["accuracy", "4+ back"].n == 3
    with pytest.raises(InputError, match="--option: none of reccon=FILE"):
        figures(reccon, context())


def test_rationales_beside_the_whole_response(tmp_path):
    file = tmp_path / "er.csv"
    file.write_text(
        "sp_id,rp_id,seeker_post,response_post,level,rationales\n"
        "s,r,I am lost,I am so sorry. Try a map.,2,I am so sorry\ns,q,I am lost,Buy a map.,0,\n"
    )

    def say(item):
        last = item.prompt[-1].content
        return ("I am so sorry" if "so sorry" in last else "none") if "Quote" in last else "none"

    given = {"ER": str(file), "rationales": "yes"}
    found = figures(epitome, context(say, options=given))
    assert found["rationale_token_f1", "ER"].value == 100
    assert found["rationale_iou_f1", "ER"].value == 100
    assert found["control_whole_rationale_token_f1", "ER"].value == pytest.approx(
        100 * (2 * 4 / (4 + 9)) / 2
    )
    assert found["accuracy", "ER"].value == 0.5
    with pytest.raises(InputError, match="rationales=maybe; allowed: yes, no"):
        figures(epitome, context(options={"ER": str(file), "rationales": "maybe"}))


def test_profiles_by_a_word_list(tmp_path, capsys):
    file = tmp_path / "words.tsv"
    file.write_text("gloom\tsadness\t1\nsunny\tjoy\t1\n")
    items = [Item(str(at), str(at), (Message("user", text),), None)
             for at, text in enumerate(["Such gloom", "A sunny day"])]  # fmt: skip
    arm = context(lambda item: "All gloom here today", items=items, options={"nrc": str(file)})
    found = figures(lexicon, arm)
    assert found["per_100_sadness", "en"].value == 25
    assert found["per_100_joy", "en"].value == 0
    assert found["affect_cosine", "en"].value == 0.5  # 1 and 0
    assert found["coverage", "en"].value == 0.25
    with pytest.raises(InputError, match="--option nrc=FILE: no word list there"):
        figures(lexicon, context())
    words = ["evaluate", "--arm", "r=references", "--suite", "lexicon", "--option", "nrc=gone.tsv"]
    words += ["--data", "shipped:hed/hed.en.jsonl", "--limit", "1", "--out", str(tmp_path / "x")]
    assert cli.main(words) == 2
    told = "gone.tsv: no word list there; the NRC Emotion Lexicon may not be given on: get it from"
    assert told in capsys.readouterr().err


def test_emotions_and_variety_of_empathetic_dialogues(tmp_path):
    header = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\n"
    rows = "".join(
        f"hit:{n}_conv:{n},{at},{emotion},Place {n},{at % 2},{text},5|5|5_5|5|5,\n"
        for n, emotion in enumerate(["sad", "sad", "proud"])
        for at, text in ((1, "I saw it."), (2, f"Which one {n}?"))
    )
    file = tmp_path / "test.csv"
    file.write_text(header + rows)

    def say(item):
        return "sad" if "What did the speaker feel" in item.prompt[-1].content else "Oh no"

    given = {"ed": str(file), "turns": "3"}
    found = figures(empathetic_dialogues, context(say, options=given))
    assert found["accuracy", "emotion"].value == pytest.approx(2 / 3)
    assert found["control_majority_accuracy", "emotion"].value == pytest.approx(2 / 3)
    assert found["unique", "listener turns"].value == pytest.approx(100 / 3)
    assert found["distinct_1", "listener turns"].value == pytest.approx(100 * 2 / 6)
    assert found["control_listener_unique", "listener turns"].value == 100


def test_both_questions_of_an_item_of_emobench(tmp_path):
    def row(name):
        return {"qid": name, "language": "en", "scenario": "s", "subject": "Ann",
                "emotion_choices": ["joy", "fear"], "emotion_label": "joy",
                "cause_choices": ["rain", "a long story"], "cause_label": "rain"}  # fmt: skip

    file = tmp_path / "eu.jsonl"
    file.write_text("".join(json.dumps(row(str(n))) + "\n" for n in range(4)))

    def likelihood(asked):
        """All emotions right, and half of the causes."""
        worse = {"fear": -9.0, "a long story": -9.0}
        found = []
        for at, (_, options) in enumerate(asked):
            sums = [
                worse.get(one, -1.0) * (-1 if one != "joy" and at > 3 else 1) for one in options
            ]
            found.append(LogProbs(np.asarray(sums), np.ones(len(options))))
        return found

    found = figures(emobench, context(log_probs=likelihood, options={"emobench": str(file)}))
    assert found["accuracy", "en/emotion"].value == 1
    assert found["EU", "en"].value == found["accuracy", "en/cause"].value == 0
    assert found["control_longest", "en/cause"].value == 0


def test_norms_and_items_one_by_one(tmp_path):
    (tmp_path / "items.txt").write_text("".join(f"Item {n}\n" for n in range(1, 21)))
    (tmp_path / "norms.json").write_text('{"Positive Affect": [25, 5]}')
    given = {"instrument": "panas", "items": str(tmp_path / "items.txt"), "repeats": "2",
             "way": "apart", "norms": str(tmp_path / "norms.json")}  # fmt: skip
    asked = []
    found = figures(instrument, context(lambda item: (asked.append(item), "3")[1], options=given))
    assert len(asked) == 40
    assert found["panas", "Positive Affect"].value == 30
    assert found["beside_norms", "Positive Affect"].value == 1
    (tmp_path / "norms.json").write_text('{"Positive Affect": 25}')
    with pytest.raises(InputError, match=r"norms\.json: no norms; give"):
        figures(instrument, context(lambda item: "3", options=given))

"""`hen prompt`, `compare`, `ablate`, `identify` and `build` as typed, over a scripted replay."""

import json
import re

import numpy as np
import pytest

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.data.judged import read_judged
from hen_jax.data.schemas import read_documents, read_pairs
from hen_jax.methods.emotion_models import EmotionModel, lexicon_model
from hen_jax.methods.identifier_training import load_identifier
from hen_jax.methods.measured import (
    MEASURES,
    MethodItem,
    of_the_set,
)
from hen_jax.methods.measured_by_models import (
    affect_measures,
    emp_f1_of,
    small_model_recall,
)
from hen_jax.methods.play import Outcome, Played
from hen_jax.methods.table import METHOD_LABELS, Parts, method_named
from hen_jax.text.conversation import Message, Reply, UnansweredError
from hen_jax.text.replay import recorded
from hen_jax.verbs.methods import compare as recipe
from hen_jax.verbs.methods import comparing
from hen_jax.verbs.methods.ablate import ablate, designed, effects

PROMPTS = ("My scooter broke down in the rain.", "I am sad, my cat is gone.", "We won! I am glad.")
COE = "Emotion words: sad\nCause: A loss.\nStrategy: {}\nReply: What happened {}?"
LEXICON = "sad\tsad\t1\nglad\thappy\t1\nrain\tworried\t1\n"


def answer(messages):
    """A scripted model: what it says depends on what it is asked."""
    text = "\n".join(one.content for one in messages)
    said = next((one.content for one in messages if one.role == "user"), "")
    if "Emotion words: ..." in text:
        return COE.format("exploration" if "cat" in said else "interpretation", len(said))
    if "Answer with one word" in text:
        return "happy" if "glad" in text and "rules" in text else "sad"
    if "fit what was said" in text:
        return "yes"
    if "Adherent replies" in text:
        return "other"
    if "How much empathy" in text:
        return "none" if "Oh." in text else "weak"
    if "Write only that" in text:
        return f"Something was lost: {said}"
    return "Oh." if "cat" in said else f"I hear you about {said[:9]}"


def chat(asked):
    chat.calls += len(asked)
    return [Reply(answer(messages), 5, True, -1.0) for messages in asked]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with an input, a lexicon, and `model.jsonl`, which replays the script."""
    monkeypatch.chdir(tmp_path)
    chat.calls = 0
    rows = [
        {"id": f"p{n}", "prompt": text, "emotion": label, "strategy": "EX"}
        for n, (text, label) in enumerate(zip(PROMPTS, ("worried", "sad", "happy"), strict=True))
    ]
    lines(tmp_path / "in.jsonl", rows)
    (tmp_path / "lexicon.tsv").write_text(LEXICON)
    (tmp_path / "other.tsv").write_text("ache\tnumb\t1\n")
    return tmp_path


@pytest.fixture
def scripted(monkeypatch):
    """`replay:script` is the scripted model itself."""
    monkeypatch.setattr("hen_jax.verbs.generate.generate.revision", lambda line, adapter: "1")
    monkeypatch.setattr(recipe, "open_speaker_of", lambda request: lambda seed: chat)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns_row(name, asked, replied):
    turns = (("user", asked), ("assistant", replied))
    return {"id": name, "messages": [{"role": role, "content": text} for role, text in turns]}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def hen(command):
    return cli.main(command.split())


METHODS = "base system_prompt coe_cbt ebg hef hef-cause muffin"
COMPARE = (
    f"compare --methods {METHODS} --backend replay:script --input in.jsonl --lexicon lexicon.tsv"
)


def test_all_methods_in_one_table(folder, scripted, capsys):
    assert hen(f"{COMPARE} --out out") == 0
    told = capsys.readouterr().out
    assert [row.split(" | ")[0] for row in told.splitlines()[2:9]] == [
        f"| {name}" for name in METHODS.split()
    ]
    items = read_judged(folder / "out" / "replies.jsonl")
    assert len(items) == 3
    assert set(items[0].replies) == set(METHODS.split())
    result = json.loads((folder / "out" / "results.json").read_text())
    rows = {(row["method"], row["measure"]): row for row in result["rows"]}
    assert rows["base", "calls"]["value"] == 1
    assert rows["muffin", "rounds"]["value"] == 2
    assert rows["hef", "emotion accuracy"]["value"] == pytest.approx(1 / 3)
    assert ("base", "emotion accuracy") not in rows
    assert rows["ebg", "fell back"]["value"] == 1
    assert rows["muffin", "tokens"]["against"] == "base"
    assert rows["muffin", "tokens"]["difference"] == rows["muffin", "tokens"]["value"] - 5
    assert ("base", "affect cosine") not in rows  # no reply has a word of the lexicon
    recall = {"top-1 recall": pytest.approx(1.0), "top-3 recall": pytest.approx(1.0)}
    assert result["small model"] == recall
    sets = result["sets"]
    assert sets["coe_cbt"]["strategy balance"] == pytest.approx(0.5794, abs=1e-4)  # 2 to 1, of 3
    assert sets["base"]["strategy balance"] is None
    assert sets["coe_cbt"]["strategy macro-F1"] == pytest.approx(2 * 1 / (1 + 3))  # EX once of 3
    assert sets["hef"]["emotion macro-F1"] == pytest.approx((2 * 1 / (2 + 2)) / 3)
    traces = read(folder / "out" / "traces.jsonl")
    strategy = {row["id"]: row["trace"]["strategy"] for row in traces if row["method"] == "coe_cbt"}
    assert strategy == {"p0": "IP", "p1": "EX", "p2": "IP"}
    calls = sum(row["calls"] for row in traces)
    assert chat.calls == calls


def test_a_lexicon_of_nrc_categories_knows_the_labels(folder, scripted):
    (folder / "nrc.tsv").write_text(
        "sad\tsadness\t1\nsad\tnegative\t1\nglad\tjoy\t1\nrain\tanger\t1\n"
    )
    call = COMPARE.replace("lexicon.tsv", "nrc.tsv")
    assert hen(f"{call} --out out") == 0
    result = json.loads((folder / "out" / "results.json").read_text())
    assert result["small model"]["top-1 recall"] == pytest.approx(2 / 3)  # not `worried`
    asked = (folder / "out" / "traces.jsonl").read_text()
    assert '"candidates": ["sad", ' in asked
    assert "negative" not in "".join(str(row["trace"].get("candidates")) for row in
                                     read(folder / "out" / "traces.jsonl"))  # fmt: skip


def test_a_comparison_goes_on_where_it_was_stopped(folder, scripted, monkeypatch):
    def fails(asked):
        replies = chat(asked)
        return (_ for _ in ()).throw(UnansweredError("gone", [*replies[:4], None, *replies[5:]]))

    assert hen(f"{COMPARE} --out whole") == 0
    whole = chat.calls
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "open_speaker_of", lambda request: lambda seed: fails)
        assert hen(f"{COMPARE} --out out") == 2
    assert not (folder / "out" / "results.json").exists()
    before = chat.calls
    assert hen(f"{COMPARE} --out out") == 0
    assert chat.calls - before == whole - (before - whole) + 1
    for name in ("replies.jsonl",):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    before, kept = chat.calls, (folder / "out" / "calls.jsonl").read_bytes()
    # How an endpoint is reached changes no reply.
    for flags in ("", "--at-once 2 --timeout 9 --tries 2 --per-minute 5"):
        assert hen(f"{COMPARE} --out out {flags}") == 0
    assert chat.calls == before
    assert (folder / "out" / "calls.jsonl").read_bytes() == kept
    costs = json.loads((folder / "out" / "results.json").read_text())["costs"]
    assert costs["base"]["seconds each"] is None


def test_a_replay_answers_for_a_model_and_another_model_is_a_contender(folder, capsys):
    asked = [[Message("user", text)] for text in PROMPTS]
    recorded(chat, folder / "one.jsonl")(asked)
    recorded(lambda asked: [Reply("Mine.")] * len(asked), folder / "two.jsonl")(asked)
    call = "compare --methods base,mine=replay:two.jsonl --backend replay:one.jsonl --apart"
    assert hen(f"{call} --input in.jsonl --out out") == 0
    items = read_judged(folder / "out" / "replies.jsonl")
    assert {item.replies["mine"] for item in items} == {"Mine."}
    result = json.loads((folder / "out" / "results.json").read_text())
    assert result["sets"]["mine"]["unique"] == pytest.approx(1 / 3)
    assert result["costs"]["mine"]["peak MiB"] > 10
    assert not result["together"]
    capsys.readouterr()
    call = "prompt --method muffin --backend replay:one.jsonl --prompt Hello"
    assert hen(call) == 2
    assert "has no reply to the conversation that ends with 'Hello'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--methods base base", "--methods names 'base' twice"),
        ("--methods hef", "method 'hef' needs a small model"),
        ("--methods mine=ebg@nobody", "back-end 'nobody'; give model:FOLDER"),
        ("--methods base --limit -1", "--limit is 0 for all"),
        ("--methods base --schema nothing", "schema 'nothing'; allowed: hed"),
        ("--methods tooled --knowledge gone.tsv", "gone.tsv: no such file"),
        ("--methods base --epitome gone", "gone"),
        ("--methods =base@replay:script", "'=base@replay:script' has no name"),
        ("--methods base --tool-timeout nan", "--tool-timeout is nan"),
        ("--methods base --candidates 1", "--candidates is 1; allowed: 2 or more"),
        ("--methods base --lexicon other.tsv", "the emotions numb, of which none is among"),
    ],
)
def test_wrong_input_is_one_line(folder, scripted, capsys, flags, told):
    call = f"compare {flags} --backend replay:script --input in.jsonl --out out"
    assert hen(call) == 2
    assert told in capsys.readouterr().err


def test_shipped_data_is_compared_without_its_system_messages(folder, scripted):
    call = "compare --methods base hef-model --backend replay:script --schema hed --bare --limit 5"
    assert hen(f"{call} --input shipped:hed/hed.en.jsonl --out out") == 0
    items = read_judged(folder / "out" / "replies.jsonl")
    assert len(items) == 5
    assert all(len(item.prompt) == 1 for item in items)


def test_an_ablation_tells_what_each_lever_does(folder, scripted, capsys):
    call = "ablate --method hef --levers model cause definitions --backend replay:script"
    assert hen(f"{call} --input in.jsonl --lexicon lexicon.tsv --out out --design full") == 0
    result = json.loads((folder / "out" / "results.json").read_text())
    assert {row["method"] for row in result["rows"]} == {
        f"hef{off}{on}" for off in ("", "-cause", "-model") for on in ("", "+definitions")
    }
    found = {(row["lever"], row["measure"]): row["effect"] for row in result["effects"]}
    assert found["cause", "calls"] == 0
    assert found["definitions", "characters read"] > found["cause", "characters read"] > 0
    values = {row["method"]: row["value"] for row in result["rows"]
              if row["measure"] == "characters read"}  # fmt: skip
    gaps = [values[f"hef{on}"] - values[f"hef-cause{on}"] for on in ("", "+definitions")]
    assert found["cause", "characters read"] == pytest.approx(np.mean(gaps))
    assert "| lever | measure | effect of having it | 95 % |" in capsys.readouterr().out
    with pytest.raises(InputError, match="lever 'lens' of 'hef'; allowed, once: model, two_stage"):
        ablate(None, "hef", ["lens"], "full")


def test_an_ablation_varies_the_chosen_levers_alone(folder, scripted, capsys):
    call = "ablate --method hef --levers two_stage cause --backend replay:script --out out"
    assert hen(f"{call} --input in.jsonl --lexicon lexicon.tsv") == 0
    result = json.loads((folder / "out" / "results.json").read_text())
    assert {row["method"] for row in result["rows"]} == {"hef", "hef-two_stage", "hef-cause"}
    found = {(row["lever"], row["measure"]): row["effect"] for row in result["effects"]}
    assert found["cause", "characters read"] > 0


def test_designs_and_effects_by_hand():
    assert designed(("a", "b"), "one-out") == [
        frozenset("ab"), frozenset("b"), frozenset("a")]  # fmt: skip
    assert len(designed("abc", "full")) == 8
    items = [MethodItem(str(n), str(n), ()) for n in range(2)]

    def played(*tokens):
        return [Played(Outcome("x"), 1, 1, one, 0, 0.0) for one in tokens]

    found = {frozenset("ab"): played(9, 5), frozenset("a"): played(4, 4),
             frozenset("b"): played(6, 1), frozenset(): played(2, 2)}  # fmt: skip
    told = {row[:2]: row[2] for row in effects(items, found, "ab")}
    assert told["a", "tokens"] == pytest.approx(((9 - 6 + 4 - 2) / 2 + (5 - 1 + 4 - 2) / 2) / 2)
    assert told["b", "tokens"] == pytest.approx(((9 - 4 + 6 - 2) / 2 + (5 - 4 + 1 - 2) / 2) / 2)
    found[frozenset("b")] = found[frozenset()]  # b does nothing without a
    told = {row[:2]: row[2] for row in effects(items, found, "ab")}
    assert told["b", "tokens"] == pytest.approx(((9 - 4) + (5 - 4)) / 2)


def test_identifiers_are_trained_and_label(folder, capsys):
    rows = [
        {"context": f"case {n}", "reply": reply, "labels": {"ER": er, "IP": "0", "EX": ex}}
        for n in range(12)
        for er, ex, reply in (("0", "0", "Right."), ("2", "1", "Poor you. And now?"))
    ]
    lines(folder / "rows.jsonl", rows)
    call = "identify train --input rows.jsonl --epochs 8 --out"
    assert hen(f"{call} it") == 2
    assert "head 'IP' has the label '0' alone" in capsys.readouterr().err
    for row in rows:
        row["labels"]["IP"] = row["labels"]["ER"]
    lines(folder / "rows.jsonl", rows)
    assert hen(f"{call} it") == 0
    assert "ER, held out: accuracy 1.000" in capsys.readouterr().out
    lines(folder / "said.jsonl", [{"prompt": "case 1", "completion": "Poor you. And now?"}])
    label = "identify label --model it --input said.jsonl --schema completion --out labels.jsonl"
    assert hen(label) == 0
    (row,) = read(folder / "labels.jsonl")
    assert row["labels"] == {"ER": "2", "EX": "1", "IP": "2"}
    capsys.readouterr()
    assert hen("identify train --input rows.jsonl --label nope --out other") == 2
    assert "--label says which label of a --schema is learnt" in capsys.readouterr().err
    assert hen(f"{call.replace('--input', '--schema hed --label nope --input')} other") == 2


def test_an_identifier_has_the_heads_of_its_files_alone(folder, capsys):
    head = "sp_id,rp_id,seeker_post,response_post,level,rationales\n"
    rows = (f"{n},{n},sad {n},So sorry {n},{n % 3},\n" for n in range(30))
    (folder / "er.csv").write_text(head + "".join(rows))
    assert hen("identify train --epitome ER=er.csv --epochs 1 --out er") == 0
    assert "er: an identifier of ER\n" in capsys.readouterr().out
    assert load_identifier(folder / "er").heads == {"ER": ("0", "1", "2")}
    call = "compare --methods base --backend replay:script --input in.jsonl --epitome er --out out"
    assert hen(call) == 2
    assert "an identifier of ER; the reward needs one of ER, IP, EX" in capsys.readouterr().err


def test_the_data_of_ebg(folder, monkeypatch):
    from hen_jax.verbs.methods import build

    monkeypatch.setattr("hen_jax.verbs.generate.generate.revision", lambda line, adapter: "1")
    monkeypatch.setattr(build, "open_speaker_of", lambda request: lambda seed: chat)
    call = "build ebg --input shipped:hed/hed.en.jsonl --schema hed --labels hed"
    assert hen(f"{call} --backend replay:script --out out") == 0
    first, second = (read_documents(folder / "out" / f"stage{n}.jsonl", "messages") for n in (1, 2))
    assert len(first) == len(second) > 50
    assert "Analysis: Something was lost" in first[0].conversation.messages[-1].content
    assert [one.trains for one in second[0].conversation.messages[-3:]] == [False, None, True]
    groups = {one.group for one in first}
    assert groups == {one.group for one in second}
    assert len(groups) < len(first)  # statements, of which each has several replies
    for document in first:  # what ebg asks in a comparison with these labels
        *asked, _ = document.conversation.messages
        steps = method_named("ebg", Parts(labels=METHOD_LABELS["hed"]))(asked[1:])
        assert [(one.role, one.content) for one in next(steps)[0]] == [
            (one.role, one.content) for one in asked
        ]
    bad = f"{call.replace(' --labels hed', '')} --backend replay:script --out other"
    assert hen(bad) == 2


def test_the_data_of_muffin_and_of_tools(folder, monkeypatch, capsys):
    from hen_jax.verbs.methods import build

    monkeypatch.setattr("hen_jax.verbs.generate.generate.revision", lambda line, adapter: "1")
    monkeypatch.setattr(build, "open_speaker_of", lambda request: lambda seed: chat)
    lines(folder / "said.jsonl", [
        {"prompt": text, "completion": "Stranded? I come."} for text in PROMPTS])  # fmt: skip
    call = "--input said.jsonl --schema completion --out"
    assert hen(f"build muffin {call} muffin --backend replay:script --candidates 3") == 0
    assert "3 different candidates to 3 contexts; unhelpful 0.333" in capsys.readouterr().out
    rows = read(folder / "muffin" / "candidates.jsonl")
    assert [row["helpful"] for row in rows] == [[1], [0], [1]]
    with monkeypatch.context() as patch:
        silent = lambda request: lambda seed: lambda asked: [Reply("?")] * len(asked)  # noqa: E731
        patch.setattr(build, "open_speaker_of", silent)
        assert hen(f"build muffin {call} mute --backend replay:script --candidates 2") == 0
    assert "of none is it known, 3 not known" in capsys.readouterr().out
    for least in ("nan", "-1", "2"):
        assert hen(f"build tools {call} other --knowledge atomic.tsv --least {least}") == 2
        assert "--least is" in capsys.readouterr().err
    (folder / "atomic.tsv").write_text("my scooter broke down\txReact\tstranded\n")
    assert hen(f"build tools {call} tools --knowledge atomic.tsv") == 0
    documents = read_documents(folder / "tools" / "traces.jsonl", "messages")
    roles = [[one.role for one in document.conversation.messages] for document in documents]
    assert roles[0] == ["system", "user", "assistant", "tool", "assistant"]
    assert roles[1] == ["system", "user", "assistant"]
    assert hen(f"build tools {call} other") == 2
    several = [*turns_row("", PROMPTS[0], "Why is that?")["messages"]]
    several += turns_row("", "I missed the bus.", "Stranded? I come.")["messages"]
    lines(folder / "several.jsonl", [{"id": "0", "messages": several}])
    call = "build tools --input several.jsonl --schema messages --knowledge atomic.tsv"
    assert hen(f"{call} --out last") == 0
    (traced,) = read_documents(folder / "last" / "traces.jsonl", "messages")
    own = [one.trains for one in traced.conversation.messages if one.role == "assistant"]
    assert own[0] is False
    assert all(trains is not False for trains in own[1:])


def test_the_data_of_distilling(folder):
    head = ["dialog_id", "speaker_uttr"]
    for name in ("human", "chatgpt_empathy", "llama_empathy", "gemini_empathy", "mixtral_empathy"):
        head += [f"rating_{name}", f"response_{name}"]
    random = np.random.default_rng(0)
    rows = [",".join(head)]
    for n in range(200):
        cells = [str(n), f"said {n}"]
        for name in "hclgm":
            cells += [str(random.integers(1, 4)), f"{name} {n}"]
        rows.append(",".join(cells))
    (folder / "rated.csv").write_text("\n".join(rows))
    ratings = np.asarray([[int(cell) for cell in row.split(",")[2::2]] for row in rows[1:]])
    held_out = (ratings == 3).sum(axis=1) < 2
    assert hen("build distil --input rated.csv --out out --writer llama") == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert (report["train"], report["held out"]) == ((~held_out).sum(), held_out.sum())
    pairs = read_pairs(folder / "out" / "pairs.jsonl", "preference")
    good = ~held_out & (ratings[:, 2] == 3)
    assert len(pairs) == (good & (ratings[:, 0] < 3)).sum()
    assert report["sft"] == (good & (ratings[:, 0] == 3)).sum()


def test_selection_adds_up_and_is_the_same_twice(folder, monkeypatch, capsys):
    words = ["sun", "rain", "wind", "snow", "hail", "fog", "storm", "heat"] * 3
    said = [turns_row(str(n), f"case {n}", f"{word} {n} {word}") for n, word in enumerate(words)]
    said += [{"id": "copy", "messages": said[0]["messages"]}]
    lines(folder / "new.jsonl", said)
    lines(folder / "seed.jsonl", said[:2])
    call = "build select --input new.jsonl --schema messages --seed-set seed.jsonl --share 0.5"
    for out in ("one", "two"):
        assert hen(f"{call} --seed-schema messages --out {out}") == 0
    told = json.loads((folder / "one" / "report.json").read_text())
    kept = [row["kept"] for row in told["steps"]]
    assert kept[:2] == [25, 25]
    assert kept == sorted(kept, reverse=True)
    assert re.search(r"mentions women \| 0 \| 0 \| -", capsys.readouterr().out)
    assert hen("build select --input seed.jsonl --schema messages --seed-set seed.jsonl "
               "--seed-schema messages --out same") == 2  # fmt: skip
    told = capsys.readouterr().err
    assert "nothing is left after the step 'apart from the seed set" in told
    assert "threshold" not in told
    assert kept[-1] == round(kept[-2] / 2) == len(read_documents("one/selected.jsonl", "messages"))
    for name in ("selected.jsonl", "report.json", "report.md"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
    recorded(lambda asked: [Reply("rain 1 rain")] * len(asked), folder / "model.jsonl")(
        [[Message("user", f"case {n}")] for n in range(2, 24)]
    )
    call += " --backend replay:model.jsonl --seed-schema messages"
    assert hen(f"{call} --threshold 99 --out three") == 2
    told = capsys.readouterr().err
    assert "nothing is left after the step 'quality 99 or more'" in told
    assert "lower --threshold" in told
    asked = read(folder / "three" / "calls.jsonl")
    assert hen(f"{call} --threshold -100 --out three") == 0
    assert read(folder / "three" / "calls.jsonl") == asked  # nobody is asked again
    for flags, told in (
        ("--threshold nan", "--threshold is nan"),
        ("--share 7", "--share is 7.0"),
        ("--seed -1", "--seed is -1"),
    ):
        assert hen(f"{call} {flags} --out four") == 2
        assert told in capsys.readouterr().err
        assert not (folder / "four").exists()


def test_selection_guards_against_its_own_habits(folder, capsys):
    """Seeds that speak of women and men alike, new dialogues of men alone: it is told, and the
    share of new replies is bounded."""
    seeds = [turns_row(f"s{n}", f"case {n}", f"{('She', 'He')[n % 2]} left {n} at {n * n}")
             for n in range(40)]  # fmt: skip
    new = [turns_row(f"n{n}", f"case {n}", f"He came {n * 7} and went {n * 13} to {n}")
           for n in range(60)]  # fmt: skip
    lines(folder / "seed.jsonl", seeds)
    lines(folder / "new.jsonl", new)
    call = "build select --input new.jsonl --schema messages --seed-set seed.jsonl --share 1"
    assert hen(f"{call} --seed-schema messages --out out") == 0
    told = json.loads((folder / "out" / "report.json").read_text())
    assert {text.partition(":")[0] for text in told["changed"]} == {
        "mentions women",
        "mentions men",
    }
    assert "CHANGED: mentions women: 50.0% of the seed set, 0.0% of" in capsys.readouterr().out
    assert told["share of synthetic data"] == pytest.approx(0.6)
    assert told["covering radius"] == 0
    assert hen(f"{call} --seed-schema messages --out less --most-synthetic 0.2") == 0
    told = json.loads((folder / "less" / "report.json").read_text())
    assert told["share of synthetic data"] == pytest.approx(0.2)
    assert 0 < told["covering radius"] <= told["covering radius of as many drawn, mean"]
    assert hen(f"{call} --seed-schema messages --out none --most-synthetic 0.001") == 2
    assert "40 replies of the seed set allow none" in capsys.readouterr().err


KNOWN = "my scooter broke\txReact\tstranded and wet\nwe won\txReact\tproud\n"


def test_calls_that_are_due_are_told_from_needless_ones(folder, monkeypatch):
    """`hen build tools` says where a call is due, `hen compare` how well a model decides it."""
    (folder / "atomic.tsv").write_text(KNOWN)
    rows = [turns_row("a", "my scooter broke", "You must be stranded and wet."),
            turns_row("b", "my cat is gone", "Where did you last see it?"),
            turns_row("c", "we won", "Good.")]  # fmt: skip
    lines(folder / "said.jsonl", rows)
    build = "build tools --input said.jsonl --schema messages --knowledge atomic.tsv --out traces"
    assert hen(build) == 0
    due = {row["id"]: row["due"] for row in read(folder / "traces" / "due.jsonl")}
    assert due == {"a": True, "b": False, "c": False}

    def eager(asked):
        """Asks about everything but the cat."""
        call = {
            "tool": "commonsense",
            "arguments": {"event": "scooter broke", "relation": "xReact"},
        }
        return [Reply("Oh." if "cat" in one[1].content or one[-1].role == "tool" else
                      json.dumps(call)) for one in asked]  # fmt: skip

    monkeypatch.setattr("hen_jax.verbs.generate.generate.revision", lambda line, adapter: "1")
    monkeypatch.setattr(recipe, "open_speaker_of", lambda request: lambda seed: eager)
    call = "compare --methods tooled --backend replay:script --input traces/due.jsonl"
    assert hen(f"{call} --knowledge atomic.tsv --out out") == 0
    result = json.loads((folder / "out" / "results.json").read_text())
    sets = result["sets"]["tooled"]
    assert (sets["call precision"], sets["call recall"]) == (0.5, 1.0)
    assert sets["needless calls"] == 0.5
    rows = {row["measure"]: row["value"] for row in result["rows"]}
    assert rows["tool called"] == pytest.approx(2 / 3)


def test_levels_agree_with_those_of_the_reference(folder):
    """Emp-F1 of a method that says the references is 1 where all levels occur; recall of a small
    model is over the known emotions."""
    model = lexicon_model({"sad": frozenset({"sad"}), "glad": frozenset({"happy"})})
    items = [MethodItem(str(n), str(n), (Message("user", text),), emotion, reference=str(n))
             for n, (text, emotion) in enumerate([("sad", "sad"), ("glad", "sad"), ("x", None)])
             ]  # fmt: skip
    assert small_model_recall(items, model) == {"top-1 recall": 0.5, "top-3 recall": 1.0}
    assert small_model_recall(items[2:], model) == {}
    capital = [items[0]._replace(emotion="Sad")]
    assert small_model_recall(capital, model)["top-1 recall"] == 1.0

    def identify(pairs):
        levels = np.eye(3)[[int(reply) for _, reply in pairs]]
        return dict.fromkeys(("ER", "IP", "EX"), levels)

    def said(*replies):
        return [Played(Outcome(one), 1, 1, 1, 0, 0.0) for one in replies]

    assert emp_f1_of(items, said("0", "1", "2"), identify)["Emp-F1 macro"] == 1
    found = emp_f1_of(items, said("0", "0", "0"), identify)
    assert found["Emp-F1 ER"] == pytest.approx((2 * 1 / (3 + 1)) / 3)
    assert emp_f1_of([one._replace(reference=None) for one in items], said(*"000"), identify) == {}


def test_affect_of_the_same_text_is_the_same():
    model = lexicon_model({"sad": frozenset({"sad"}), "glad": frozenset({"happy"})})
    items = [MethodItem("a", "a", (Message("user", "I am sad"),))]
    same, other = ([Played(Outcome(text), 1, 1, 1, 0, 0.0)] for text in ("I am sad", "glad"))
    figures = affect_measures(model)
    assert figures["affect cosine"](items, same).tolist() == pytest.approx([1.0])
    assert figures["affect KL"](items, same).tolist() == pytest.approx([0.0])
    assert figures["affect agreement"](items, other).tolist() == [0.0]
    p, q = np.array([0.1, 1.1]) / 1.2, np.array([1.1, 0.1]) / 1.2
    assert figures["affect KL"](items, other)[0] == pytest.approx((p * np.log(p / q)).sum())


def test_affect_of_a_text_without_a_known_word_is_no_number():
    model = lexicon_model({"sad": frozenset({"sad"}), "glad": frozenset({"happy"})})
    any_model = EmotionModel(("a",), lambda said: np.ones(1), lambda said: [])
    for said, reply, own, other in (
        ("I am sad", "Oh.", True, False),
        ("I am sad", "", True, True),
        ("The bus", "glad", True, False),
        ("I am sad", "I am not glad", True, False),
        ("I am sad", "glad", False, False),
    ):
        items = [MethodItem("a", "a", (Message("user", said),))]
        played = [Played(Outcome(reply), 1, 1, 1, 0, 0.0)]
        for told, missing in ((model, own), (any_model, other)):
            found = [figure(items, played)[0] for figure in affect_measures(told).values()]
            assert np.isnan(found).tolist() == [missing] * 3


def test_what_a_trace_names_is_compared_with_what_is_known():
    item = MethodItem("a", "a", (), "worried", "EX")
    said = Outcome("x", {"emotion": "sad", "attribute": "negative", "strategy": "EX"})
    found = Played(said, 1, 1, 1, 0, 0.0)
    named = ("emotion", "attribute", "strategy")
    assert [MEASURES[f"{one} accuracy"](item, found) for one in named] == [0.0, 1.0, 1.0]
    capitals = item._replace(emotion="Sad", strategy="ex")
    assert [MEASURES[f"{one} accuracy"](capitals, found) for one in named] == [1.0] * 3
    assert of_the_set([capitals], [found])["emotion macro-F1"] == 1.0
    unknown = item._replace(emotion=None, strategy=None)
    assert all(np.isnan(MEASURES[f"{one} accuracy"](unknown, found)) for one in named)


def test_contenders_name_methods_and_models(tmp_path):
    from hen_jax.verbs.generate.generate import GenerateRequest

    request = GenerateRequest(model=tmp_path)
    given = comparing.Comparing(
        request, ("ebg", "a=adapter:x", "b=coe_cbt@endpoint:http://h/v1#m"), tmp_path, tmp_path
    )
    plain, adapter, other = comparing.contenders(given)
    assert (plain.method, plain.request) == ("ebg", request)
    assert (adapter.method, str(adapter.request.adapter)) == ("base", "x")
    assert (other.method, other.request.line) == ("coe_cbt", "endpoint:http://h/v1#m")
    with pytest.raises(InputError, match="--methods names none"):
        comparing.Comparing(request, (), tmp_path, tmp_path)

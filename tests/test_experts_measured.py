"""Arms of experts on replayed conversations: from a file of settings to a report and figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.journal import open_journal
from hen_jax.data import samples
from hen_jax.data.schemas import read_records
from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.evaluation.expert_report import allowed_claim
from hen_jax.evaluation.replayed_turns import Script, replayed, so_far
from hen_jax.runs.routing import Route
from hen_jax.text.conversation import Message, Reply, UnansweredError
from hen_jax.verbs.evaluate import experts_arms, experts_levels, experts_plot
from hen_jax.verbs.evaluate.experts_arms import answers_of, routes_of, scripts_of
from hen_jax.verbs.evaluate.experts_levels import levels_of
from hen_jax.verbs.evaluate.experts_measured import (
    RESULTS,
    TABLES,
    lines_of,
    measure_experts,
)
from hen_jax.verbs.evaluate.experts_settings import ExpertArm, read_measurement

LEVEL = {"distress": 0.9, "career": 0.6, "learning": 0.4, "writing": 0.2}
SCRIPTS = [
    Script("a", "a", "distress", 0.9, ("one", "two", "three")),
    Script("b", "b", "writing", 0.2, ("uno",)),
]


def spoken(messages) -> list[str]:
    return [f"{one.role[0]}:{one.content}" for one in messages]


def test_an_arm_goes_on_from_its_own_replies_and_a_turn_is_one_call():
    calls, kept = [], {}

    def chat(asked):
        calls.append([spoken(messages) for messages in asked])
        return [Reply(f"to {messages[-1].content}") for messages in asked]

    found = replayed(chat, SCRIPTS, lambda s: (Message("system", s.context),), {}, kept.update)
    assert calls == [
        [["s:distress", "u:one"], ["s:writing", "u:uno"]],
        [["s:distress", "u:one", "a:to one", "u:two"]],
        [["s:distress", "u:one", "a:to one", "u:two", "a:to two", "u:three"]],
    ]
    assert kept == found
    assert spoken(so_far(SCRIPTS[0], 1, found)) == ["u:one", "a:to one", "u:two", "a:to two"]


def test_what_came_before_a_failure_is_kept_and_not_asked_again():
    kept, asked_again = {}, []

    def fails(asked):
        if asked[0][-1].content == "two":
            raise UnansweredError("gone", [None])
        return [Reply("first") for _ in asked]

    with pytest.raises(UnansweredError, match="gone"):
        replayed(fails, SCRIPTS, lambda _: (), {}, kept.update)
    assert kept == {("a", 0): "first", ("b", 0): "first"}

    def chat(asked):
        asked_again.extend(messages[-1].content for messages in asked)
        return [Reply("second") for _ in asked]

    found = replayed(chat, SCRIPTS, lambda _: (), kept, kept.update)
    assert asked_again == ["two", "three"]
    assert [found["a", turn] for turn in range(3)] == ["first", "second", "second"]


@pytest.fixture
def file(tmp_path):
    """A measurement of three arms, two of them with experts."""
    (tmp_path / "replies.jsonl").write_text("")
    for name in CONTEXTS:
        (tmp_path / "experts" / name).mkdir(parents=True)
    given = {
        "backend": f"replay:{tmp_path / 'replies.jsonl'}",
        "conversations": [
            {"schema": "steered", "path": f"shipped:eea/{name}.jsonl"} for name in CONTEXTS
        ],
        "arms": [
            {"name": "baseline"},
            {"name": "system prompt", "prompted": True},
            {"name": "adapter", "adapter": str(tmp_path / "experts" / "{expert}")},
            {
                "name": "wrong expert",
                "adapter": str(tmp_path / "experts" / "{expert}"),
                "route": "wrong",
            },
        ],
        "measures": [
            {
                "name": "preference",
                "model": str(tmp_path),
                "replies": str(tmp_path),
                "target": "stated",
            },
        ],
        "part": "all",
        "limit": 5,
        "draws": 60,
    }
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(given))
    return path


@pytest.fixture
def scripted(monkeypatch):
    """Chats and measures that no model is needed for: a reply says how empathetic it is.

    The base is at 0.5 everywhere; the prompt moves it to what the context wants and fades; an
    expert is at the level of its own context. Replies alone show half of what is not 0.5.
    """
    calls = []

    def open_chat(line, answering):
        adapter = answering.adapter and answering.adapter.name

        def chat(asked):
            calls.append(len(asked))
            return [Reply(str(level(adapter, messages))) for messages in asked]

        return chat

    def level(adapter, messages):
        turn = sum(one.role == "user" for one in messages) - 1
        if adapter is not None:
            return LEVEL[adapter]
        if messages[0].role == "system":
            named = next(n for n in CONTEXTS if CONTEXTS[n].words.en in messages[0].content)
            return 0.5 + (LEVEL[named] - 0.5) * 0.5**turn
        return 0.5

    def opened(measure, alone, context):
        def give(asked):
            said = np.asarray([float(messages[-1].content) for messages in asked])
            return 0.5 + (said - 0.5) / 2 if alone else said

        return give

    monkeypatch.setattr(experts_arms, "open_chat", open_chat)
    monkeypatch.setattr(experts_arms, "revision", lambda line, adapter=None: f"{line}{adapter}")
    monkeypatch.setattr(experts_levels, "opened", opened)
    return calls


def test_from_a_file_to_a_report(file, scripted, tmp_path, capsys):
    found = measure_experts(read_measurement(file), tmp_path / "out")
    assert found["conversations"] == dict.fromkeys(CONTEXTS, 5)
    report = found["measures"]["preference"]
    gaps = report["gaps"]["adapter"]
    desired = {name: one["value"] for name, one in report["desired"].items()}
    left = sum(abs(LEVEL[name] - desired[name]) for name in CONTEXTS)
    before = sum(abs(0.5 - desired[name]) for name in CONTEXTS)
    assert gaps["reduction"]["value"] == pytest.approx(100 * (1 - left / before), abs=0.01)
    assert report["gaps"]["wrong expert"]["reduction"]["value"] < 0
    assert report["persistence"]["adapter"]["slope"]["value"] == 0
    assert report["persistence"]["adapter"]["area"]["value"] == 1
    held = report["persistence"]["system prompt"]["levels"]
    # Where little is wanted a prompt that fades raises the level, and is further from it.
    assert report["closeness"]["system prompt"]["slope"]["value"] < -0.02
    assert report["closeness"]["adapter"]["slope"]["value"] == 0
    assert report["levels"]["adapter"]["distress"]["value"] == 0.9
    assert len(held) == max(len(s.users) for s in scripts_of(read_measurement(file)))
    closer = report["closer"]["adapter than system prompt"]
    assert closer["distress"]["low"] > 0
    assert closer["learning"]["high"] < 0
    assert report["closer"]["wrong expert than adapter"]["distress"]["value"] == pytest.approx(-0.5)
    # Half of each difference shows in replies alone, exactly: nothing is left beside it.
    assert report["effects"]["adapter"]["share"]["value"] == pytest.approx(0, abs=1e-3)
    assert found["arms"]["wrong expert"]["confusion"]["distress"] == {"learning": 5}
    assert "may not be used to claim" in report["claim"]
    # Again: nothing is asked anew, and the files are the same, figures as well.
    written = sorted((tmp_path / "out").glob("[!.]*"))
    files = {one: one.read_bytes() for one in written}
    done = len(scripted)
    measure_experts(read_measurement(file), tmp_path / "out")
    assert len(scripted) == done
    assert {one: one.read_bytes() for one in written} == files
    names = {one.name for one in files}
    assert {RESULTS, TABLES, "levels_preference.png", "turns_preference.svg"} <= names
    text = (tmp_path / "out" / TABLES).read_text()
    assert "| adapter | " in text
    assert "gap reduction, system prompt" in text


def test_the_target_of_a_preference_model_is_what_it_says_of_the_chosen_replies(
    file, scripted, tmp_path, monkeypatch
):
    def opened(measure, alone, context):
        def level(text):
            return float(text) if text.startswith("0.") else 0.7

        return lambda asked: np.asarray([level(messages[-1].content) for messages in asked])

    monkeypatch.setattr(experts_levels, "opened", opened)
    given = json.loads(file.read_text())
    given["measures"] = [{"name": "preference", "model": str(tmp_path)}]
    file.write_text(json.dumps(given))
    report = measure_experts(read_measurement(file), tmp_path / "out")["measures"]["preference"]
    assert report["target"] == "chosen"
    assert {one["value"] for one in report["desired"].values()} == {0.7}
    assert report["levels"].keys() == {"baseline", "system prompt", "adapter", "wrong expert"}
    found = report["gaps"]["adapter"]["contexts"]
    assert found["distress"]["value"] == pytest.approx(0)  # 0.9 is as far beyond as 0.5 is short
    assert found["career"]["value"] == pytest.approx(50)


def test_another_prompt_or_adapter_is_asked_anew(file, scripted, tmp_path):
    asked = read_measurement(file)
    scripts = scripts_of(asked)
    with open_journal(tmp_path / "j.jsonl", "replies") as journal:
        names = [answers_of(arm, asked, scripts, journal).by for arm in asked.arms]
    assert len(set(names)) == 4


def test_the_journal_of_a_stopped_measurement_is_taken_up(file, scripted, tmp_path):
    asked = read_measurement(file)
    scripts = scripts_of(asked)
    arm, out = asked.arms[1], tmp_path / "j.jsonl"
    with open_journal(out, "replies") as journal:
        whole = answers_of(arm, asked, scripts, journal)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:30]))
    scripted.clear()
    with open_journal(out, "replies") as journal:
        again = answers_of(arm, asked, scripts, journal)
    assert again == whole
    assert sum(scripted) == len(whole.said) - 29
    assert sorted(out.read_text().splitlines()) == sorted("".join(lines).splitlines())


def test_a_reply_without_a_level_is_counted_and_left_out(file, scripted, tmp_path, monkeypatch):
    given = experts_levels.opened

    def some(measure, alone, context):
        give = given(measure, alone, context)

        def without_first(asked):
            values = give(asked)
            values[0] = np.nan
            return values

        return without_first

    monkeypatch.setattr(experts_levels, "opened", some)
    monkeypatch.setattr(experts_levels, "word_of", lambda measure, alone, context: "one model")
    asked = read_measurement(file)
    scripts = scripts_of(asked)
    with open_journal(tmp_path / "r.jsonl", "r") as journal:
        answers = {arm.name: answers_of(arm, asked, scripts, journal) for arm in asked.arms[:2]}
    with open_journal(tmp_path / "l.jsonl", "l") as journal:
        found = levels_of(asked.measures[0], scripts, answers, 5, journal)
    assert found.missing == {"baseline": 1, "system prompt": 0}  # the first of all
    with open_journal(tmp_path / "l.jsonl", "l") as journal:
        again = levels_of(asked.measures[0], scripts, answers, 5, journal)
    np.testing.assert_array_equal(again.arms["baseline"], found.arms["baseline"])


def test_levels_that_were_given_before_a_stop_are_not_asked_again(
    file, scripted, tmp_path, monkeypatch
):
    asked_of: list[int] = []

    def stops(measure, alone, context):
        def give(asked):
            if len(asked_of) == 2:
                raise KeyboardInterrupt
            asked_of.append(len(asked))
            return np.linspace(0, 1, len(asked))

        return give

    monkeypatch.setattr(experts_levels, "TURNS_AT_ONCE", 3)
    monkeypatch.setattr(experts_levels, "opened", stops)
    monkeypatch.setattr(experts_levels, "word_of", lambda measure, alone, context: str(alone))
    asked = read_measurement(file)
    scripts = scripts_of(asked)
    with open_journal(tmp_path / "r.jsonl", "r") as journal:
        answers = {arm.name: answers_of(arm, asked, scripts, journal) for arm in asked.arms[:1]}

    def levels() -> None:
        with open_journal(tmp_path / "l.jsonl", "l") as journal:
            levels_of(asked.measures[0], scripts, answers, 5, journal)

    with pytest.raises(KeyboardInterrupt):
        levels()
    monkeypatch.setattr(
        experts_levels,
        "opened",
        lambda *_: lambda asked: asked_of.append(len(asked)) or np.linspace(0, 1, len(asked)),
    )
    levels()
    said = len(answers["baseline"].said)
    assert asked_of[:2] == [3, 3]
    assert max(asked_of) == 3
    assert sum(asked_of) == 2 * said  # once by the measure, once by its control


def test_a_measure_is_tested_on_crossed_items(file, scripted, tmp_path, monkeypatch):
    """One that reads the condition is right always; one that counts letters half of the time."""
    crossings = read_records(samples.path("crossed/level.en.jsonl"), "crossed")
    own = {one.prompts[k]: one.replies[k] for one in crossings for k in (0, 1)}

    def understands(measure, alone, context):
        return lambda asked: np.asarray([float(own[m[:-1]] == m[-1].content) for m in asked])

    def counts(measure, alone, context):
        return lambda asked: np.asarray([len(messages[-1].content) / 999 for messages in asked])

    measure, files = read_measurement(file).measures[0], ["shipped:crossed/level.en.jsonl"]
    for number, (give, value) in enumerate(((understands, 1.0), (counts, 0.5))):
        monkeypatch.setattr(experts_levels, "opened", give)
        with open_journal(tmp_path / f"{number}.jsonl", "levels") as journal:
            found = experts_levels.tested(measure, list(CONTEXTS), files, journal)
        assert found.keys() == {"level"}
        assert (found["level"]["value"], found["level"]["missing"]) == (value, 0)
        assert found["level"]["groups"] == len(crossings)
        assert allowed_claim(found).startswith("Above chance on crossed pairs of: level") == (
            value == 1
        )


def test_a_measure_that_says_nothing_of_an_arm_is_refused(file, scripted, tmp_path, monkeypatch):
    def nothing(measure, alone, context):
        return lambda asked: np.full(len(asked), np.nan)

    monkeypatch.setattr(experts_levels, "opened", nothing)
    with pytest.raises(InputError, match="gave no level to any first reply of arm 'baseline'"):
        measure_experts(read_measurement(file), tmp_path / "out")


def test_a_router_reads_the_first_turn(tmp_path, monkeypatch):
    asked = []

    def open_router(folder):
        def route(conversations):
            asked.extend(spoken(one) for one in conversations)
            return [Route("writing", 0.9, {}, {}), Route(None, 0.2, {}, {})]

        return route

    monkeypatch.setattr(experts_arms, "open_router", open_router)
    assert routes_of(ExpertArm("a", route=str(tmp_path)), SCRIPTS) == {"a": "writing", "b": None}
    assert asked == [["u:one"], ["u:uno"]]


def test_as_a_suite_of_hen_evaluate(file, scripted, tmp_path, capsys):
    arm = ["evaluate", "--suite", "experts", "--arm", "baseline=references", "--limit", "1"]
    out = ["--out", str(tmp_path / "evaluated")]
    assert cli.main([*arm, *out, "--option", f"experts={file}"]) == 0
    found = json.loads((tmp_path / "evaluated/results.json").read_text())["figures"]
    report = json.loads((tmp_path / "evaluated/experts/results.json").read_text())
    (line,) = [
        one
        for one in found
        if one["measure"] == "preference: gap_reduction" and one["group"] == "adapter"
    ]
    whole = report["measures"]["preference"]["gaps"]["adapter"]["reduction"]
    assert [line[key] for key in ("value", "low", "high")] == [
        whole[key] for key in ("value", "low", "high")
    ]
    assert "may not be used to claim" in line["about"]
    assert (tmp_path / "evaluated/experts/levels_preference.svg").exists()
    assert cli.main([*arm, *out]) == 2
    assert "give --option experts=FILE" in capsys.readouterr().err


def test_routes(tmp_path):
    assert routes_of(ExpertArm("a"), SCRIPTS) == {"a": "distress", "b": "writing"}
    assert routes_of(ExpertArm("a", route="wrong"), SCRIPTS) == {"a": "writing", "b": "distress"}
    with pytest.raises(InputError, match="two contexts or more"):
        routes_of(ExpertArm("a", route="wrong"), SCRIPTS[:1])
    path = tmp_path / "routes.json"
    path.write_text('{"a": "writing", "b": null}')
    assert routes_of(ExpertArm("a", route=str(path)), SCRIPTS) == {"a": "writing", "b": None}
    path.write_text('{"a": "writing"}')
    with pytest.raises(InputError, match="no expert for conversation 'b'"):
        routes_of(ExpertArm("a", route=str(path)), SCRIPTS)
    with pytest.raises(InputError, match="the folder of a router, or a file"):
        routes_of(ExpertArm("a", route="learned"), SCRIPTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "base"}, "no arm is called so"),
        ({"arms": [{"name": "x"}, {"name": "x"}]}, "each its own name"),
        ({"measures": []}, "give one or more"),
        ({"measures": [{"name": "m"}]}, "has no model"),
        ({"conversations": [{"schema": "hed", "path": "x"}]}, "give 'steered'"),
        ({"backend": "nothing"}, "back-end 'nothing'"),
        ({"armz": []}, "no such field; did you mean"),
        ({"turns": 0}, "turns is 0"),
    ],
)
def test_settings_that_are_wrong_are_refused_by_name(file, changes, message):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        read_measurement(file)


def test_a_file_of_somebody_else_stays(file, scripted, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RESULTS).write_text("mine")
    with pytest.raises(InputError, match="is not what hen_jax wrote there"):
        measure_experts(read_measurement(file), tmp_path / "out")
    assert (tmp_path / "out" / RESULTS).read_text() == "mine"


def test_a_claim_needs_an_interval_above_one_half():
    kinds = {
        "level": {"value": 0.8, "low": 0.7, "high": 0.9, "groups": 40},
        "fact": {"value": 0.55, "low": 0.45, "high": 0.65, "groups": 40},
        "role": {"value": 1.0, "low": 1.0, "high": 1.0, "groups": 3},
    }
    assert allowed_claim(kinds) == (
        "Above chance on crossed pairs of: level. May not be used to claim anything about: fact, "
        "role."
    )
    assert "no crossed accuracy" in allowed_claim({})
    kinds = {"level": {"value": 0.8, "low": None, "high": None, "groups": 1}}
    assert "Above chance on crossed pairs of: no kind." in allowed_claim(kinds)


def test_an_accuracy_without_an_interval_is_told():
    kinds = {
        "level": {"value": 0.8, "low": 0.7, "high": 0.9},
        "fact": {"value": 1.0, "low": None, "high": None},
        "role": {"value": None, "low": None, "high": None},
    }
    rest = ("missing", "persistence", "desired", "levels", "gaps", "closer", "by_length")
    report = {"kind": "preference", "claim": "", "crossed": kinds, **{name: {} for name in rest}}
    found = {"conversations": {"career": 1}, "turns": [1], "measures": {"m": report}}
    told = "level 0.80 (0.70 to 0.90); fact 1.00 (no interval); role unknown."
    assert f"Crossed accuracies: {told}" in lines_of(found)


def test_a_confusion_is_drawn_with_the_base_last(tmp_path):
    counts = {"distress": {"distress": 3, "base": 1}, "writing": {"writing": 2}}
    paths = experts_plot.draw_confusion(tmp_path / "routes", counts)
    assert [path.name for path in paths] == ["routes.png", "routes.svg"]
    assert Path(paths[1]).read_text().count("<svg") == 1

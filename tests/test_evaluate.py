"""`hen evaluate` end to end: recordings, a tiny model, a scripted judge; missing values, kills."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from endpoint_server import Told, serving

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.core.journal import open_journal
from hen_jax.core.mesh import MeshConfig, make_mesh
from hen_jax.evaluation.suite import NotMeasuredError
from hen_jax.evaluation.suites.crossed import shipped_crossings
from hen_jax.io.endpoint import Endpoint
from hen_jax.models.config import Execution
from hen_jax.models.decoder import merge
from hen_jax.runs import adapted, likelihood
from hen_jax.runs.arms import read_arms
from hen_jax.runs.chats import Answering
from hen_jax.runs.evaluated import read_arm_items
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.text.chat import render, render_prompt
from hen_jax.text.conversation import Conversation, Message, Reply, message_row
from hen_jax.verbs.evaluate import asking as evaluate_asking
from hen_jax.verbs.evaluate import cost as evaluate_cost
from hen_jax.verbs.evaluate import evaluate as evaluating
from hen_jax.verbs.evaluate import reward_scores
from hen_jax.verbs.evaluate.settings import Evaluating
from hen_jax.verbs.evaluate.suites import SUITES, suites_named

DATA = ("shipped:hed/hed.en.jsonl", "shipped:hed/hed.zh.jsonl")


def record(path: Path, say) -> str:
    """A recording of every reply that the verb asks for; its back-end."""
    rows = [
        {"messages": list(map(message_row, item.prompt)), "reply": say(item), "tokens": 3}
        for item in read_arm_items(DATA, "hed", limit=3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"replay:{path}"


@pytest.fixture
def arms(tmp_path):
    """A long-winded base, and one that says what the data says, but for one empty reply."""
    base = record(tmp_path / "base.jsonl", lambda item: "I feel that you should try to rest. " * 3)
    ours = record(
        tmp_path / "ours.jsonl",
        lambda item: "" if item.id.endswith("SRPER-en") else item.reference,
    )
    return [f"--arm=base={base}", f"--arm=ours={ours}"]


def run(out: Path, *more: str) -> dict:
    assert cli.main(["evaluate", f"--out={out}", "--limit=3", "--draws=200", *more]) == 0
    return json.loads((out / "results.json").read_text())


def figure(result: dict, arm: str, measure: str, group: str, against: str = "") -> dict:
    named = (arm, measure, group, against)
    (one,) = [
        one
        for one in result["figures"]
        if (one["arm"], one["measure"], one["group"], one["against"]) == named
    ]
    return one


def test_two_recordings_are_measured_and_compared(arms, tmp_path, capsys):
    result = run(tmp_path / "out", *arms, "--suite=high_context", "--suite=overlap")
    assert figure(result, "ours", "empty", "en")["value"] == pytest.approx(0.25)
    assert figure(result, "ours", "empty", "zh")["value"] == 0
    assert figure(result, "ours", "bleu", "zh/SER")["value"] == pytest.approx(100)
    assert figure(result, "base", "names_emotion", "en")["value"] == 1
    gained = figure(result, "ours", "length", "en/SER", "base")
    alone = [figure(result, arm, "length", "en/SER")["value"] for arm in ("ours", "base")]
    assert gained["value"] == pytest.approx(alone[0] - alone[1])
    assert gained["high"] < 0 < gained["p_holm"] <= 1
    assert gained["n"] == gained["clusters"] == 3
    line = figure(result, "base", "unique", "en")
    assert (line["value"], line["n"], line["suite"]) == (pytest.approx(100 / 12), 12, "overlap")
    page = capsys.readouterr().out
    assert page == (tmp_path / "out" / "table.md").read_text()
    assert "Differences from base on the same items" in page
    assert result["items"]["n"] == 24
    samples = [json.loads(x) for x in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 24 + 21  # an empty reply is none
    assert samples[0]["id"].startswith("base/hed-")
    assert samples[0]["messages"][-1]["role"] == "assistant"


def test_the_same_command_asks_nothing_again_and_says_the_same(arms, tmp_path, monkeypatch):
    first = run(tmp_path / "out", *arms, "--suite=high_context")
    monkeypatch.setattr(evaluate_asking, "ask_all", lambda *_, **__: 1 / 0)
    assert run(tmp_path / "out", *arms, "--suite=high_context") == first


def test_a_kill_between_loses_what_was_under_way_alone(arms, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", *arms, "--suite=high_context")
    calls = (tmp_path / "whole" / "calls.jsonl").read_text().splitlines(keepends=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "calls.jsonl").write_text("".join(calls[:30]) + calls[30][:20])
    asked, ask_all = [], evaluate_asking.ask_all

    def counted(asks, *given, **more):
        asked.extend(asks)
        return ask_all(asks, *given, **more)

    monkeypatch.setattr(evaluate_asking, "ask_all", counted)
    assert run(out, *arms, "--suite=high_context") == whole
    assert len(asked) == 48 - 29


def test_emp_by_a_judge_counts_what_could_not_be_read(arms, tmp_path):
    def judge(request, number):
        said = request["messages"][-1]["content"]
        text = '{"score": 1}' if "you should try" in said else '{"score": 5}'
        return Told({"id": "1", "choices": [{"index": 0, "finish_reason": "stop", "message": {
            "role": "assistant", "content": "nothing" if "SKIP" in said else text}}]})  # fmt: skip

    skip = record(tmp_path / "skip.jsonl", lambda item: "SKIP" if item.task == "SER" else "Well.")
    with serving(judge) as server:
        result = run(
            tmp_path / "out", *arms, f"--arm=third={skip}", "--suite=empathy", "--language=en",
            f"--judge=endpoint:{server.url}#strict",
        )  # fmt: skip
        asked = len(server.requests)
    assert asked == 12 + 9 + 12  # an empty reply is not shown to a judge
    assert figure(result, "base", "emp_judge", "en/macro")["value"] == 0
    assert figure(result, "ours", "emp_judge", "en/SRPER")["value"] == 0  # empty
    assert figure(result, "ours", "emp_judge", "en/macro")["value"] == pytest.approx(75)
    lost = figure(result, "third", "emp_judge", "en/SER")
    assert (lost["value"], lost["n"], lost["missing"]) == (None, 0, 3)
    assert figure(result, "third", "emp_judge", "en/macro")["value"] is None
    assert figure(result, "third", "emp_judge", "en/macro")["missing"] == 3
    assert figure(result, "third", "unread_judge", "en")["value"] == pytest.approx(25)
    assert figure(result, "ours", "emp_judge", "en/macro", "base")["value"] == pytest.approx(75)
    line = figure(result, "ours", "emp_judge", "en/SPER")
    assert line["judge"].startswith(f"endpoint:{server.url}#strict (")
    assert len(line["prompt_hash"]) == 16


def test_a_judge_and_a_reward_of_another_dtype_are_asked_anew(tmp_path, monkeypatch):
    opened, asked = [], []

    def named_reward(given, dtype):
        return given, lambda: opened.append(dtype) or (lambda said: np.ones(len(said)))

    def ask_all(asks, *_, **__):
        asked.extend(one.key for one in asks)
        return {one.key: Reply("5") for one in asks}

    monkeypatch.setattr(reward_scores, "named_reward", named_reward)
    monkeypatch.setattr(evaluate_asking, "ask_all", ask_all)
    judge = record(tmp_path / "judge.jsonl", lambda item: "5")
    said = Conversation((Message("user", "Hi."), Message("assistant", "Hello.")))
    for dtype in ("float32", "bfloat16", "bfloat16"):
        given = Evaluating((), tmp_path, judge=judge, reward="r", dtype=dtype)
        with (
            open_journal(tmp_path / "calls.jsonl", "calls") as calls,
            open_journal(tmp_path / "values.jsonl", "values") as values,
        ):
            kept = evaluate_asking.open_kept(calls, values)
            asking = evaluate_asking.Asking(given, [], [], kept)
            assert asking.reward
            assert asking.judge
            assert asking.reward.score([said]).tolist() == [1.0]
            asking.judge.ask(["Good?"])
    assert opened == ["float32", "bfloat16"]
    assert len(asked) == 3
    assert asked[0] != asked[1] == asked[2]


def test_emp_by_people_and_an_arm_that_they_did_not_rate(arms, tmp_path):
    names = [item.id for item in read_arm_items(DATA[:1], "hed", limit=3)]
    votes = tmp_path / "votes.csv"
    rows = [f"ours/{name},{who},{rating}" for name in names for who, rating in (("a", 5), ("b", 4))]
    votes.write_text("\n".join(["item,annotator,rating", *rows[2:]]) + "\n")
    result = run(
        tmp_path / "out", *arms, "--suite=empathy", "--language=en", f"--ratings={votes}"
    )  # fmt: skip
    line = figure(result, "ours", "emp_people", "en/SER")
    assert (line["value"], line["n"], line["missing"]) == (pytest.approx(87.5), 2, 1)
    (untold,) = result["not_measured"]
    assert (untold["arm"], untold["suite"]) == ("base", "empathy")
    assert "rates no reply of it" in untold["why"]


@pytest.fixture(scope="module")
def scored(tiny_base):
    """Prompts with two replies each, and what the tiny model gives them."""
    asked = [
        (prompt, one.replies) for one in shipped_crossings(["en"], 1) for prompt in one.prompts
    ]
    return asked, likelihood.open_likelihood(tiny_base)(asked)


def test_log_probs_are_those_of_the_forward_pass(tiny_base, scored):
    asked, found = scored
    words, mesh = known_tokenizer(tiny_base), make_mesh(MeshConfig())
    config = likelihood.language_model(likelihood.hf.read_config(tiny_base))
    held = adapted.open_adapted(tiny_base, None, config, mesh, Execution(remat="none"))
    model = merge(held.opened.graphdef, held.params, held.frozen)
    said = [(prompt, reply) for prompt, replies in asked for reply in replies]
    rendered = [render(Conversation((*p, Message("assistant", r))), words) for p, r in said]
    longest = max(len(one.tokens) for one in rendered)
    rows = np.stack([np.pad(one.tokens, (0, longest - len(one.tokens))) for one in rendered])
    segments = np.stack([np.arange(longest) < len(one.tokens) for one in rendered]).astype(int)
    places = np.tile(np.arange(longest), (len(rows), 1))

    @jax.jit
    def log_probs(rows):
        return jax.nn.log_softmax(model.logits(model.hidden(rows, places, segments)))

    tables = np.asarray(log_probs(rows))
    for at, ((prompt, _), table, one) in enumerate(zip(said, tables, rendered, strict=True)):
        start = len(render_prompt(prompt, words))
        own = [t for t in range(start, len(one.tokens)) if one.mask[t]]
        expected = sum(table[t - 1, one.tokens[t]] for t in own)
        np.testing.assert_allclose(found[at // 2].sums[at % 2], expected, rtol=1e-4)
        assert found[at // 2].tokens[at % 2] == len(own)


def test_who_is_asked_together_changes_no_likelihood_and_programs_serve_again(
    tiny_base, monkeypatch
):
    """Prompts of many lengths, with two and with three replies: alone, together, in parts."""
    made = []
    monkeypatch.setattr(
        likelihood, "_compiled", lambda *of, made_by=likelihood._compiled: (
            made.append(of[1]), made_by(*of))[1]
    )  # fmt: skip
    asked = [
        ((Message("user", "It rains. " * n),), ("Oh.", "I come at once.", "No.")[: 2 + n % 2])
        for n in (1, 2, 3, 5, 8, 13)
    ]
    ask = likelihood.open_likelihood(tiny_base)
    together = ask(asked)
    first = len(made)
    assert first <= 4
    assert len(set(made)) == first
    again = [one for at in range(0, len(asked), 3) for one in ask(asked[at : at + 3])]
    alone = [ask([one])[0] for one in asked]
    for one, other, third in zip(together, again, alone, strict=True):
        np.testing.assert_allclose(one.sums, other.sums, rtol=1e-5)
        np.testing.assert_allclose(one.sums, third.sums, rtol=1e-5)
        assert one.tokens.tolist() == other.tokens.tolist() == third.tokens.tolist()
    before = len(made)
    ask(asked)
    assert len(made) == before


def test_an_endpoint_that_echoes_gives_the_same(tiny_base, scored):
    asked, found = scored

    def echo(request, number):
        ids = request["prompt"]
        logprobs = {"tokens": [""] * (len(ids) + 1), "token_logprobs": [None, *ids[1:], -9.0]}
        return Told({"id": "1", "choices": [{"index": 0, "text": "", "finish_reason": "length",
                                             "logprobs": logprobs}]})  # fmt: skip

    words = known_tokenizer(tiny_base)
    with serving(echo) as server:
        ask = likelihood.endpoint_likelihood(Endpoint(server.url, "m"), tiny_base)
        given = ask(asked[:2])
        with pytest.raises(InputError, match="does not list the log-probabilities of its prompt"):
            likelihood.endpoint_log_probs(Endpoint(server.url, "m", tries=1), [[]])
    prompt, replies = asked[1]
    rendered = render(Conversation((*prompt, Message("assistant", replies[0]))), words)
    start = len(render_prompt(prompt, words))
    mine = rendered.tokens[start:][rendered.mask[start:]]
    assert given[1].sums[0] == pytest.approx(float(mine.sum()))
    np.testing.assert_array_equal(given[1].tokens, found[1].tokens)


def test_a_model_is_put_through_every_suite_of_likelihoods(tiny_base, tmp_path):
    result = run(
        tmp_path / "out", f"--arm=tiny={tiny_base}", "--arm=data=references", "--language=en",
        "--suite=crossed", "--suite=sentiment", "--suite=perplexity", "--limit=2",
        f"--inspect={tmp_path / 'logs'}",
    )  # fmt: skip
    line = figure(result, "tiny", "interaction", "en/level")
    assert (line["n"], line["clusters"], line["missing"]) == (2, 2, 0)
    for control in ("without_condition", "control_length", "control_words"):
        assert figure(result, "tiny", control, "en")["value"] == pytest.approx(50)
    nats = np.log(figure(result, "tiny", "perplexity", "en")["value"])
    assert nats == pytest.approx(np.log(2000), rel=0.1)  # of a random model, a uniform one's
    assert figure(result, "tiny", "accuracy", "sentiment.en")["n"] == 2
    (path,) = (tmp_path / "logs").glob("*_sentiment_tiny.json")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d", path.name)  # else inspect-ai lists none
    log = json.loads(path.read_text())
    assert (log["version"], log["status"], log["eval"]["task"]) == (2, "success", "sentiment")
    (accuracy,) = [one for one in log["results"]["scores"] if one["name"] == "accuracy"]
    assert accuracy["scored_samples"] == len(log["samples"]) == 2
    mean = np.mean([one["scores"]["accuracy"]["value"] for one in log["samples"]])
    assert accuracy["metrics"]["sentiment.en"]["value"] == pytest.approx(mean)
    assert [(one["arm"], one["suite"]) for one in result["not_measured"]] == [
        ("data", "crossed"), ("data", "sentiment"), ("data", "perplexity"),
    ]  # fmt: skip


def test_arms_are_read_and_refused_in_a_line(tiny_base, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for given, what in (
        ([], "no arm"),
        (["base"], "give NAME=MODEL"),
        (["a=x/y"], "no such folder"),
        ([f"a={tiny_base}:nowhere"], "nowhere: no such folder"),
        ([f"a={tiny_base}", f"a={tiny_base}"], "two arms of one name"),
        ([f"a={tmp_path}"], "give what `hen export` makes of it"),
        (["a=endpoint:http://x/v1"], "give model:FOLDER"),
    ):
        with pytest.raises(InputError, match=what):
            read_arms(given)
    (arm,) = read_arms([f"a={tiny_base}:{tiny_base}"])
    assert (arm.kind, arm.adapter) == ("model", tiny_base)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--suite=emphaty"], "allowed: empathy, judges"),
        (["--part=tset"], "--part 'tset'; allowed: train, valid, test, all"),
        (["--data=nowhere.jsonl"], "nowhere.jsonl"),
        (["--limit=-1"], "limit is -1; allowed: 0 or more"),
        (["--option=x"], "give KEY=VALUE"),
        (["--judge-begin"], "goes with --judge model:FOLDER"),
        (["--suite=empathy", "--rubric=warm", "--judge=replay:FILE"], "FILE: no such file"),
        (["--suite=empathy", "--ratings=votes.csv", "--scale=five"], "give LOW-HIGH"),
    ],
)
def test_bad_flags_are_one_line_and_leave_nothing(arms, tmp_path, capsys, flags, what):
    out = tmp_path / "out"
    assert cli.main(["evaluate", f"--out={out}", *arms, *flags]) == 2
    told = capsys.readouterr().err
    assert what in told
    assert len(told.splitlines()) == 1
    assert not (out / "results.json").exists()


def test_a_suite_of_another_module_is_entered_by_its_name(arms, tmp_path, monkeypatch):
    def found(context):
        yield evaluating.Measured(
            "", "", "n", "all", float(len(context.items)), None, None, 1, 1, 0
        )
        raise NotMeasuredError("the rest needs more")

    module = ModuleType("my_suite")
    monkeypatch.setitem(vars(module), "SUITE", evaluating.Suite(found, "mine"))
    monkeypatch.setitem(sys.modules, "my_suite", module)
    monkeypatch.setitem(SUITES, "mine", "my_suite")
    assert suites_named(["mine"])["mine"].about == "mine"
    result = run(tmp_path / "out", *arms, "--suite=mine")
    assert figure(result, "ours", "n", "all")["value"] == 24
    assert [one["why"] for one in result["not_measured"]] == ["the rest needs more"] * 2


def test_costs_are_timed_one_by_one_and_together(monkeypatch):
    asked = []

    def chat(prompts):
        asked.append(len(prompts))
        return [Reply("x", 4)] * len(prompts)

    monkeypatch.setattr(evaluate_cost, "open_speaker", lambda *_: lambda seed: chat)
    prompts = [(Message("user", str(at)),) for at in range(3)]
    found = evaluate_cost.timed("model:x", Answering(), prompts)
    assert asked == [1, 3, 1, 1, 1, 3]
    assert found["tokens"] == [4, 4, 4]
    assert len(found["seconds"]) == 3
    assert min(*found["seconds"], found["first_seconds"], found["together_tokens_per_second"]) > 0


@pytest.mark.slow  # a process of its own, which compiles
def test_a_model_s_cost_is_measured_in_a_process_of_its_own(tiny_base):
    prompts = [item.prompt for item in read_arm_items(DATA[:1], "hed", limit=1)]
    found = evaluate_cost.measure_cost(
        f"model:{tiny_base}", Answering(max_new_tokens=4), prompts, ours=True
    )
    assert len(found["seconds"]) == len(found["tokens"]) == 4
    assert 100 < found["peak_host_mib"] < 20_000
    with pytest.raises(InputError, match="its cost could not be measured"):
        evaluate_cost.measure_cost("model:nowhere", Answering(), prompts, ours=True)

"""`hen generate` over a file: in order, resumed, and never into another's replies."""

import dataclasses
import fcntl
import json
from pathlib import Path

import pytest
import tiny_folder
from endpoint_server import said, serving

from hen_jax import cli
from hen_jax.core.errors import InputError
from hen_jax.runs.chats import Answering
from hen_jax.text.conversation import Message, Reply, UnansweredError
from hen_jax.verbs.generate import file as writing
from hen_jax.verbs.generate.file import generate_file, read_prompts
from hen_jax.verbs.generate.generate import GenerateRequest

CHATS = [[{"role": "user", "content": f"问 {place}"}] for place in range(7)]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"messages": one} if n % 2 else {"prompt": one[0]["content"]} for n, one in enumerate(CHATS)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture
def request_(tmp_path):
    path = tmp_path / "said.jsonl"
    path.write_text("")
    return GenerateRequest(backend=f"replay:{path}")


@pytest.fixture
def speak(monkeypatch):
    """Sets who answers: `(seed, conversations) -> replies`; chunks of three."""
    monkeypatch.setattr(writing, "_CHUNK", 3)

    def use(answer):
        speaker = lambda seed: lambda asked: answer(seed, asked)  # noqa: E731
        monkeypatch.setattr(writing, "open_speaker_of", lambda _: speaker)

    return use


def echo(seed, asked):
    return [Reply(f"{messages[-1].content} {seed % 1000}", 2, True, -0.5) for messages in asked]


def replies(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_line_per_reply_in_order_that_is_a_replay(prompts, request_, tmp_path, capsys, speak):
    speak(echo)
    out = tmp_path / "replies.jsonl"
    written = generate_file(GenerateRequest(backend=request_.backend, n=2), prompts, out)
    assert (written.replies, written.before, written.tokens) == (14, 0, 28)
    rows = replies(out)
    assert [row["messages"] for row in rows] == [one for one in CHATS for _ in range(2)]
    assert [row["sample"] for row in rows] == [0, 1] * 7
    assert rows[3]["id"] == "prompts.jsonl:2"
    assert "14/14 replies" in capsys.readouterr().err
    again = ["generate", "--backend", f"replay:{out}", "--prompt", "问 0", "--json", "--n", "2"]
    assert cli.main(again) == 0
    said = [json.loads(line)["reply"] for line in capsys.readouterr().out.splitlines()]
    assert said == [row["reply"] for row in rows[:2]]


@pytest.mark.parametrize("at", [0, 2, 3, 5])
@pytest.mark.parametrize("half", [0, 20, -4])
def test_a_kill_loses_nothing_and_changes_nothing(prompts, request_, tmp_path, speak, at, half):
    speak(echo)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    generate_file(request_, prompts, whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:at]) + (lines[at][:half] if half else b""))
    written = generate_file(request_, prompts, out)
    assert written.before == at
    kept = replies(out)
    assert kept[:at] == replies(whole)[:at]
    assert [row["messages"] for row in kept] == CHATS
    if at % 3 == 0:  # where a chunk begins, what is drawn is what would have been
        assert out.read_bytes() == whole.read_bytes()
    assert generate_file(request_, prompts, out).before == 7


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000, "{"])
def test_messages_that_are_no_json_are_told_in_a_line(folder_of_messages, text, capsys):
    folder_of_messages.write_text(text)
    flags = ["--backend", "replay:x.jsonl", "--messages", str(folder_of_messages)]
    assert cli.main(["generate", *flags]) == 2
    assert "not valid JSON" in capsys.readouterr().err


@pytest.fixture
def folder_of_messages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("")
    return tmp_path / "messages.json"


def test_a_line_may_be_cut_within_a_character(prompts, request_, tmp_path, speak):
    speak(echo)
    out = tmp_path / "out.jsonl"
    generate_file(request_, prompts, out)
    whole = out.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    inside = whole.index("问".encode(), last) + 1  # after the first of its three bytes
    for end in (last, last + 1, inside, inside + 1, len(whole) - 1):
        out.write_bytes(whole[:end])
        generate_file(request_, prompts, out)
        assert out.read_bytes() == whole


def test_what_cannot_be_answered_is_named_and_the_rest_before_it_kept(
    prompts, request_, tmp_path, speak
):
    def long(seed, asked):
        if any(messages[-1].content == "问 4" for messages in asked):
            raise InputError("a prompt of 9999 tokens exceeds the model's positions")
        return echo(seed, asked)

    speak(long)
    with pytest.raises(InputError, match=r"^prompts\.jsonl:5: a prompt of 9999 tokens"):
        generate_file(request_, prompts, tmp_path / "out.jsonl")
    assert [row["messages"] for row in replies(tmp_path / "out.jsonl")] == CHATS[:4]


def test_what_an_endpoint_gave_before_it_failed_is_kept(prompts, request_, tmp_path, speak):
    def failing(seed, asked):
        found = echo(seed, asked)
        if asked[0][-1].content == "问 3":
            raise UnansweredError("the endpoint is down", [found[0], None, found[2]])
        return found

    speak(failing)
    with pytest.raises(InputError, match=r"the endpoint is down; what came so far is in .*out"):
        generate_file(request_, prompts, tmp_path / "out.jsonl")
    assert [row["messages"] for row in replies(tmp_path / "out.jsonl")] == CHATS[:4]
    speak(echo)
    assert generate_file(request_, prompts, tmp_path / "out.jsonl").before == 4


def begun(request_, prompts, out, lines=2):
    generate_file(request_, prompts, out)
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:lines]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out, _: out.write_text("mine"), r"out\.jsonl:1 is no reply of ours"),
        (lambda out, _: out.write_text("mine\n"), r"out\.jsonl:1 is no reply of ours"),
        (lambda out, _: out.write_bytes(b"\xff\n"), "holds no replies"),
        (lambda out, _: out.write_text(out.read_text() * 9), "holds more replies than"),
        (
            lambda _, prompts: prompts.write_text('{"prompt": "other"}\n' * 2),
            r"out\.jsonl:1 is a reply to another input",
        ),
    ],
)
def test_an_output_that_is_not_ours_stays(prompts, request_, tmp_path, speak, spoil, message):
    speak(echo)
    out = tmp_path / "out.jsonl"
    begun(request_, prompts, out)
    spoil(out, prompts)
    before = out.read_bytes()
    with pytest.raises(InputError, match=message):
        generate_file(request_, prompts, out)
    assert out.read_bytes() == before


def test_other_settings_do_not_go_on(prompts, request_, tmp_path, speak):
    speak(echo)
    begun(request_, prompts, tmp_path / "out.jsonl")
    other = GenerateRequest(backend=request_.backend, temperature=0.1)
    with pytest.raises(InputError, match="by another model, or with other settings"):
        generate_file(other, prompts, tmp_path / "out.jsonl")


@pytest.mark.parametrize("value", [float("nan"), -1.0, float("inf")])
def test_a_temperature_that_is_none_leaves_no_file(prompts, request_, tmp_path, value):
    asked = dataclasses.replace(request_, temperature=value)
    with pytest.raises(InputError, match="temperature is"):
        generate_file(asked, prompts, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_two_commands_do_not_write_one_file(prompts, request_, tmp_path):
    with (tmp_path / "out.jsonl").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is being written by another command"):
            generate_file(request_, prompts, tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"p\.jsonl:1:"),
        ('{"text": "x"}', r"p\.jsonl:1:prompt: missing"),
        ('{"messages": [{"role": "poet", "content": "x"}]}', r"p\.jsonl:1:messages\[0\]"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}]}',
            r"p\.jsonl:1:messages: the last message is of the assistant",
        ),
        (
            '{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}',
            "it has a system message of its own; leave out --system",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_named_before_anything_is_asked(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(line + '\n{"prompt": "fine"}\n')
    with pytest.raises(InputError, match=message):
        read_prompts(path, "Be kind.")


def test_the_system_message_stands_at_the_head(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "x", "id": "a"}\n')
    (asked,) = read_prompts(path, "Be kind.")
    assert asked == ("a", 0, (Message("system", "Be kind."), Message("user", "x")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "0", "--prompt", "x"], "--n is 0; allowed: 1 or more"),
        (["--stop", "", "--prompt", "x"], "--stop is empty"),
        (["--input", "p.jsonl"], "--input and --out go together"),
        (["--input", "p.jsonl", "--out", "o", "--prompt", "x"], "--input takes the place of"),
        ([], "no prompt; give --prompt TEXT"),
        (["--messages", "{tmp}/none.json"], "none.json"),
        (["--raw", "--prompt", "x", "--system", "y"], "--raw continues --prompt TEXT"),
        (["--raw", "--prompt", "x"], "--raw needs a model of ours, not replay:"),
        (["--prompt", "x", "--model", "m"], "give --model FOLDER, or --backend"),
    ],
)
def test_flags_that_do_not_fit_are_told_in_one_line(request_, tmp_path, capsys, arguments, message):
    filled = [word.format(tmp=tmp_path) for word in arguments]
    assert cli.main(["generate", "--backend", str(request_.backend), *filled]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder.write_tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


def test_a_conversation_is_answered_as_the_flags_say(tmp_path, monkeypatch, capsys):
    talk, asked = tmp_path / "talk.json", []

    def opened(line, answering):
        asked.append((line, answering))
        return lambda seed: lambda all_: [Reply(f"{len(one)} at {seed}", 3, False) for one in all_]

    monkeypatch.setattr("hen_jax.verbs.generate.generate.open_speaker", opened)
    talk.write_text(json.dumps([*CHATS[0], {"role": "assistant", "content": "答"}, *CHATS[1]]))
    flags = ["--messages", str(talk), "--system", "Be kind.", "--n", "2", "--seed", "3"]
    how = ["--temperature", "5", "--top-k", "4", "--stop", "a", "--stop", "b", "--tries", "2"]
    assert cli.main(["generate", "--model", "m", "--adapter", "x", *flags, *how]) == 0
    (line, answering), *_ = asked
    assert line == "model:m"
    expected = Answering(128, 5.0, 4, 1.0, 3, ("a", "b"), Path("x"), tries=2)
    assert answering == expected
    out = capsys.readouterr().out
    assert out.count("> 问 1\n4 at 3 [cut off at --max-new-tokens]\n") == 2
    assert "6 tokens in" in out


def test_a_prompt_longer_than_the_model_has_positions_is_named(folder, tmp_path, capsys):
    source, out = tmp_path / "p.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"prompt": "rain " * 5000, "id": "long"}) + "\n")
    asked = ["generate", "--model", str(folder), "--input", str(source), "--out", str(out)]
    assert cli.main(asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hen: long: a prompt of ")
    assert "exceed the model's" in line


def test_an_endpoint_is_asked_for_each_sample_with_a_seed_of_its_own(tmp_path, monkeypatch, capsys):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    source, out = tmp_path / "p.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with serving(lambda asked, _: said(f"drawn from {asked['seed']}")) as server:
        line = f"endpoint:{server.url}#m"
        asked = ["generate", "--backend", line, "--input", str(source), "--out", str(out)]
        assert cli.main([*asked, "--n", "2"]) == 0
    texts = [row["reply"] for row in replies(out)]
    assert texts[0] != texts[1]
    assert "4 replies; 12 tokens" in capsys.readouterr().out

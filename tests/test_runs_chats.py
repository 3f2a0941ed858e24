"""A line that names a back-end becomes a `Chat`, and what it cannot be is refused in one line."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import pytest
import tiny_folder
from endpoint_server import said, serving

from hen_jax.core.errors import InputError
from hen_jax.runs import chats
from hen_jax.runs.chats import Answering, back_end, open_chat, open_speaker, revision
from hen_jax.text.conversation import Message, Reply
from hen_jax.text.detect import open_chat_tokenizer
from hen_jax.verbs.evaluate.settings import Evaluating
from hen_jax.verbs.generate.generate import GenerateRequest, generate_replies, require_settings
from hen_jax.verbs.judge.settings import Judging

HI = (Message("user", "Hi"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder.write_tiny_folder(tmp_path_factory.mktemp("chats") / "tiny")


judged_with = functools.partial(Judging, Path("in"), "general", "replay:x", Path("out"))
evaluated_with = functools.partial(Evaluating, ("a=replay:x",), Path("out"))

HOT = Answering(max_new_tokens=4, temperature=5.0, seed=1)


def test_a_model_answers_as_generate_does(folder):
    chat = open_chat(f"model:{folder}", HOT)
    [reply] = chat([HI])
    assert chat([]) == []
    request = GenerateRequest(
        model=folder, prompts=("Hi",), max_new_tokens=4, temperature=5.0, seed=1
    )
    assert generate_replies(request) == [reply]


def test_a_reply_ends_before_a_stop_string_and_draws_depend_on_the_seed(folder):
    speaker = open_speaker(f"model:{folder}", HOT)
    texts = [speaker(seed)([HI])[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    stop = texts[0][len(texts[0]) // 2 :]
    [reply] = open_chat(f"model:{folder}", dataclasses.replace(HOT, stop=(stop,)))([HI])
    assert reply.text == texts[0].partition(stop)[0]
    assert reply.stopped


def test_a_reply_that_was_begun_is_gone_on_with(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(chats, "continued", lambda rows, *_: seen.extend(rows) or [])
    for messages in ([HI], [(*HI, Message("assistant", "Well"))]):
        open_chat(f"model:{folder}", HOT)(messages)
    decode = open_chat_tokenizer(folder).tokenizer.decode
    assert seen[1][: len(seen[0])] == seen[0]
    assert decode(seen[1][len(seen[0]) :]) == "Well"


def test_a_prompt_without_room_for_its_reply_is_refused(folder):
    with pytest.raises(InputError, match="exceed the model's"):
        open_chat(f"model:{folder}", Answering(max_new_tokens=10**6))([HI])


def test_an_endpoint_and_a_replay_are_opened(tmp_path, monkeypatch):
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    with serving(lambda *_: said("ok")) as server:
        answering = Answering(max_new_tokens=7, seed=3, stop=("x",))
        chat = open_chat(f"endpoint:{server.url}/#org/name", answering)
        assert chat([HI]) == [Reply("ok", 3)]
    sent = server.requests[0]
    assert (sent["model"], sent["max_tokens"], sent["seed"]) == ("org/name", 7, 3)
    assert "top_p" not in sent
    path = tmp_path / "said.jsonl"
    row = {"messages": [{"role": "user", "content": "Hi"}], "reply": "Ho"}
    path.write_text(json.dumps(row) + "\n")
    assert open_chat(f"replay:{path}")([HI]) == [Reply("Ho")]


@pytest.mark.parametrize(
    "line", ["", "gpt-4", "model:", "endpoint:http://h/v1", "endpoint:#name", "file:x"]
)
def test_another_line_is_refused(line):
    with pytest.raises(InputError, match="give model:FOLDER, endpoint:URL#MODEL or replay:FILE"):
        back_end(line)


def test_settings_that_a_back_end_has_not_are_refused(tmp_path):
    with pytest.raises(InputError, match="--adapter goes with model:FOLDER"):
        open_chat("endpoint:http://h/v1#name", Answering(adapter=tmp_path))
    with pytest.raises(InputError, match="no top-k"):
        open_chat("endpoint:http://h/v1#name", Answering(top_k=3))
    with pytest.raises(InputError, match="a stop string is empty"):
        Answering(stop=("x", ""))


def test_a_revision_changes_with_what_it_names(folder, tmp_path):
    assert revision("endpoint:http://h/v1#name") == "name"
    of_model = revision(f"model:{folder}")
    assert of_model != revision(f"model:{folder}", folder)
    said_file = tmp_path / "said.jsonl"
    said_file.write_text("\n")
    before = revision(f"replay:{said_file}")
    said_file.write_text("\n\n")
    assert before != revision(f"replay:{said_file}")
    with pytest.raises(InputError, match="no such file or folder"):
        revision("model:nowhere")


@pytest.mark.parametrize("verb", [Answering, judged_with, evaluated_with])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at_once", 0),
        ("at_once", -1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", math.nan),
        ("top_p", -1.0),
        ("top_p", 7.0),
        ("max_new_tokens", -1),
        ("per_minute", math.nan),
        ("timeout", math.nan),
        ("timeout", 0.0),
        ("tries", -1),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_asked(verb, field, value):
    with pytest.raises(InputError, match=rf"^{field} is {value}; (allowed|give)"):
        verb(**{field: value})


@pytest.mark.parametrize(
    ("verb", "field", "value"),
    [
        (judged_with, "repeats", 10**12),
        (judged_with, "repeats", 0),
        (judged_with, "probes", -1),
        (judged_with, "seed", -1),
        (judged_with, "nonce_seed", -1),
        (evaluated_with, "seed", 2**32),
        (evaluated_with, "draws", 10**12),
    ],
)
def test_how_often_is_asked_has_a_limit(verb, field, value):
    with pytest.raises(InputError, match=f"^{field} is {value}; allowed"):
        verb(**{field: value})


def test_replies_to_a_prompt_have_a_limit():
    with pytest.raises(InputError, match=r"^--n is 10{22}; allowed: 1 or more, at most 10000"):
        require_settings(GenerateRequest(backend="replay:x", prompts=("Hi",), n=10**22))

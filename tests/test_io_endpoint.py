"""An endpoint that is well is asked once each; one that is not costs one line, and nothing said."""

import asyncio
import socket

import pytest
from endpoint_server import Told, said, serving

from hen_jax.core.errors import InputError
from hen_jax.io.endpoint import Endpoint, endpoint_chat, pacing
from hen_jax.text.conversation import Message, Reply, UnansweredError
from hen_jax.text.replay import recorded, replay


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("HEN_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def asked(*texts):
    return [(Message("system", "Be brief."), Message("user", text)) for text in texts]


def last(request):
    return request["messages"][-1]["content"]


def quick(url, **more):
    return Endpoint(url, "mine", **{"backoff": 0.01, "tries": 3, **more})


def test_every_conversation_gets_its_own_reply_in_order(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("HEN_API_KEY", "sk-secret\n")

    def answer(request, number):
        late = 0.05 if last(request) == "0" else 0.0
        return said(f"re {last(request)}")._replace(delay=late)

    with serving(answer) as server:
        chat = endpoint_chat(quick(server.url, at_once=3, seed=5, stop=("END",), top_p=0.5))
        replies = chat(asked(*map(str, range(7))))
    assert replies == [Reply(f"re {n}", 3, True) for n in range(7)]
    one = server.requests[0]
    assert one["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {key: one[key] for key in ("model", "max_tokens", "temperature", "seed", "stop")} == {
        "model": "mine", "max_tokens": 512, "temperature": 0.0, "seed": 5, "stop": ["END"],
    }  # fmt: skip
    assert one["authorization"] == "Bearer sk-secret"
    assert one["path"] == "/v1/chat/completions"
    assert len(server.requests) == 7


def test_thoughts_stay_here_and_no_call_is_made_for_nothing():
    with serving(lambda *_: said("ok")) as server:
        chat = endpoint_chat(quick(server.url))
        assert chat([]) == []
        thought = Message("assistant", "Yes?", thought="who is it?")
        chat([(Message("user", "Hi"), thought, Message("user", "Me"))])
    assert len(server.requests) == 1
    assert server.requests[0]["messages"][1] == {"role": "assistant", "content": "Yes?"}


def test_a_reply_that_was_cut_says_so_and_half_a_character_is_none():
    texts = {"a": said("long", "length"), "b": said(None, "content_filter"), "c": said("\ud83d!")}
    with serving(lambda request, _: texts[last(request)]) as server:
        replies = endpoint_chat(quick(server.url))(asked("a", "b", "c"))
    assert replies == [Reply("long", 3, False), Reply("", 3, False), Reply("�!", 3, True)]


PASSING = {
    "429": Told({"error": {"message": "slow down"}}, 429, (("retry-after", "0.02"),)),
    "503": Told(b"<html>", 503, (("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),)),
    "cut": said("something long enough")._replace(cut=9),
    "no JSON": Told(b"I am a teapot"),
    "other JSON": Told({"choices": []}),
    "a list": Told([1, 2]),
    "no text": said({"no": "text"}),
    "slow": said("late")._replace(delay=0.4),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_may_pass_is_tried_again(kind):
    def answer(_, number):
        return PASSING[kind] if number < 2 else said("at last")

    with serving(answer) as server:
        chat = endpoint_chat(quick(server.url, timeout=0.15 if kind == "slow" else 5))
        assert chat(asked("Hi")) == [Reply("at last", 3)]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("429", r"HTTP 429: slow down \(tries: 3\)"),
        ("503", r"HTTP 503: .*\(tries: 3\)"),
        ("cut", r"no connection, or it was cut \(.*\) \(tries: 3\)"),
        ("no JSON", r"no chat completion: 'I am a teapot' \(tries: 3\)"),
        ("slow", r"no whole answer within 0\.15 s \(tries: 3\)"),
    ],
)
def test_what_does_not_pass_costs_one_line_and_what_came_is_kept(kind, line, tmp_path):
    def answer(request, _):
        return said("fine") if last(request) == "good" else PASSING[kind]

    path = tmp_path / "said.jsonl"
    with serving(answer) as server:
        timeout = 0.15 if kind == "slow" else 5
        chat = recorded(endpoint_chat(quick(server.url, at_once=1, timeout=timeout)), path)
        with pytest.raises(UnansweredError, match=line) as caught:
            chat(asked("good", "bad", "never asked"))
    assert caught.value.replies == (Reply("fine", 3), None, None)
    assert "\n" not in str(caught.value)
    assert "1 of 3 conversations" in str(caught.value)
    assert len(server.requests) == 4
    assert replay(path)(asked("good")) == [Reply("fine", 3)]


def test_a_refusal_is_final_and_shows_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    refusal = Told({"error": {"message": "Incorrect API key provided: sk-secret."}}, 401)
    wanted = pytest.raises(UnansweredError, match="set HEN_API_KEY or OPENAI_API_KEY")
    with serving(lambda *_: refusal) as server, wanted as caught:
        endpoint_chat(quick(server.url, at_once=1))(asked("Hi", "Ho"))
    assert "sk-secret" not in str(caught.value)
    assert "[key]" in str(caught.value)
    assert len(server.requests) == 1


def test_a_key_that_no_header_can_hold_is_refused(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\nsecret")
    with pytest.raises(InputError, match="OPENAI_API_KEY in the environment") as caught:
        endpoint_chat(quick("http://127.0.0.1:9/v1"))(asked("Hi"))
    assert "secret" not in str(caught.value)


def test_nobody_there_is_said_in_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UnansweredError, match=rf":{port}/v1, model mine: no connection"):
        endpoint_chat(quick(f"http://127.0.0.1:{port}/v1", tries=2))(asked("Hi"))


def test_it_answers_where_a_loop_runs_already():
    async def notebook():
        return endpoint_chat(quick(server.url))(asked("Hi"))

    with serving(lambda *_: said("ok")) as server:
        assert asyncio.run(notebook()) == [Reply("ok", 3)]


def test_requests_are_spaced():
    now = [0.0]
    wait = pacing(60, lambda: now[0])
    assert [wait() for _ in range(3)] == [0, 1, 2]
    now[0] = 10.0
    assert [wait(), wait()] == [0, 1]
    free = pacing(0, lambda: now[0])
    assert [free() for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("url", "more", "line"),
    [
        ("localhost:8000", {}, "give an address such as"),
        ("http://h:port/v1", {}, "give an address such as"),
        ("http://me:secret@h/v1", {}, "at h is given with a user or a password"),
        ("http://h/v1", {"model": ""}, "no model is named"),
        ("http://h/v1", {"tries": 0}, "tries is 0; allowed: 1 or more"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(url, more, line):
    with pytest.raises(InputError, match=line) as caught:
        Endpoint(url, **{"model": "mine", **more})
    assert "secret" not in str(caught.value)

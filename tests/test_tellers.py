"""Replies told piece by piece are those that `runs.chats` gives, of every back-end."""

import json

import pytest
import tiny_folder
from endpoint_server import Told, said, serving

from hen_jax.core.errors import InputError
from hen_jax.runs import tellers
from hen_jax.runs.chats import Answering, open_chat
from hen_jax.runs.tellers import open_teller, places_for
from hen_jax.runs.tiny_model import CONFIG
from hen_jax.text.conversation import Message, Reply

HI = (Message("user", "Hi"),)


def whole(telling) -> tuple[list[str], Reply]:
    pieces = []
    while True:
        try:
            pieces.append(next(telling))
        except StopIteration as end:
            return pieces, end.value


def test_a_model_tells_what_it_would_say(tmp_path, monkeypatch):
    monkeypatch.setattr(tellers, "_PLACES", 64)
    folder = tiny_folder.write_tiny_folder(tmp_path / "tiny")
    answering = Answering(max_new_tokens=10, temperature=3.0, seed=4)
    teller = open_teller(f"model:{folder}", answering)
    pieces, reply = whole(teller(HI, 4))
    assert open_chat(f"model:{folder}", answering)([HI]) == [reply]
    assert "".join(pieces) == reply.text
    assert len(pieces) == 3  # of four tokens
    broken_off = teller(HI, 4)
    next(broken_off)
    broken_off.close()
    longer = (*HI, Message("assistant", reply.text), Message("user", "And then? " * 9))
    _, second = whole(teller(longer, 5))  # in a larger engine
    assert second.tokens == 10
    assert whole(teller(HI, 4))[1] == reply
    stop = reply.text[4:6]
    stopping = open_teller(f"model:{folder}", Answering(10, 3.0, seed=4, stop=(stop,)))
    pieces, cut = whole(stopping(HI, 4))
    assert "".join(pieces) == cut.text == reply.text.partition(stop)[0]


def test_room_is_doubled_up_to_what_the_model_has():
    assert [places_for(n, CONFIG) for n in (10, 1024, 1025, 2000, 2048)] == [
        *(1024, 1024, 2048, 2048, 2048)
    ]


def chunk(text: str | None, end: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    body = {"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
    return f"data: {json.dumps(body)}\n\n".encode()


STREAM = (("content-type", "text/event-stream"),)


def of_endpoint(monkeypatch, answer, **given):
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    with serving(answer) as server:
        teller = open_teller(f"endpoint:{server.url}#m", Answering(tries=1, **given))
        return whole(teller(HI, 7)), server.requests


def test_an_endpoint_tells_as_it_streams(monkeypatch):
    parts = [chunk("Hel"), chunk("lo"), chunk(None, "length"), b"data: [DONE]\n\n"]
    (pieces, reply), asked = of_endpoint(monkeypatch, lambda *_: Told(b"".join(parts), 200, STREAM))
    assert "".join(pieces) == "Hello"
    assert reply == Reply("Hello", stopped=False)
    assert (asked[0]["stream"], asked[0]["seed"]) == (True, 7)


def test_an_endpoint_without_streams_is_asked_for_the_whole(monkeypatch):
    (pieces, reply), asked = of_endpoint(monkeypatch, lambda *_: said("Hello"))
    assert (pieces, reply) == (["Hello"], Reply("Hello", 3))
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (Told(chunk("Hel"), 200, STREAM), "the reply was cut off"),
        (Told(b'data: {"error": {"message": "it fell over"}}\n\n', 200, STREAM), "it fell over"),
        (Told({"error": {"message": "no such model"}}, 404), "HTTP 404: no such model"),
    ],
)
def test_what_breaks_off_is_told(monkeypatch, told, says):
    with pytest.raises(InputError, match=says):
        of_endpoint(monkeypatch, lambda *_: told)

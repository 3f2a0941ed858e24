"""Tokens drawn elsewhere: asked for by ids, refused where they cannot be told."""

import pytest
from endpoint_server import Told, serving

from hen_jax.core.errors import InputError
from hen_jax.io.endpoint import Endpoint
from hen_jax.io.token_endpoint import DrawnTokens, draw_tokens


def answer(tokens, end="stop", log_probs=None):
    told = {"tokens": tokens, "token_logprobs": log_probs or [-0.5] * len(tokens)}
    choice = {"index": 0, "text": "", "finish_reason": end, "logprobs": told}
    return Told({"id": "1", "object": "text_completion", "created": 0, "model": "m",
                 "choices": [choice]})  # fmt: skip


def drawn(server, prompts=((5, 6),), **more):
    endpoint = Endpoint(server.url, "mine", max_new_tokens=4, tries=1, **more)
    return draw_tokens(endpoint, prompts, range(len(prompts)), stop=(2,))


def test_ids_go_out_and_ids_with_log_probabilities_come_back(monkeypatch):
    monkeypatch.setenv("HEN_API_KEY", "sk-secret")

    def said(request, number):
        first = request["prompt"][0]
        return answer([f"token_id:{first + 1}", "token_id:2"], log_probs=[-1.0, -0.25])

    with serving(said) as server:
        found = drawn(server, ((5, 6), (9,)), at_once=1)
    assert found == [
        DrawnTokens([6, 2], [-1.0, -0.25], True),
        DrawnTokens([10, 2], [-1.0, -0.25], True),
    ]
    request = server.requests[0]
    assert request["prompt"] == [5, 6]
    assert request["temperature"] == 1.0
    assert request["stop_token_ids"] == [2]
    assert request["return_tokens_as_token_ids"] is True
    assert request["authorization"] == "Bearer sk-secret"


def test_a_reply_that_was_cut_off_did_not_end():
    with serving(lambda *_: answer(["token_id:7"], "length")) as server:
        assert drawn(server) == [DrawnTokens([7], [-0.5], False)]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (answer(["Hello"]), "does not name its tokens as token_id:ID"),
        (answer(["token_id:7"]), "ended without its stop token"),
        (Told({"error": {"message": "no such model"}}, 404), "no such model"),
    ],
)
def test_an_answer_that_cannot_be_used_is_one_line(told, message):
    with (
        serving(lambda *_: told) as server,
        pytest.raises(InputError, match=message) as raised,
    ):
        drawn(server)
    assert str(raised.value).startswith(f"endpoint {server.url}, model mine: no tokens drawn")

"""The server as its clients meet it: the official one, and bytes that no client would send."""

import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import openai
import pytest
import tiny_server
from tiny_server import opened, running

from hen_jax.core.errors import InputError
from hen_jax.io import hf
from hen_jax.measures.safety.guard import Verdict
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.runs.tiny_model import CONFIG
from hen_jax.sampling import engine as e
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.requests import Request
from hen_jax.serving.experts import Experts
from hen_jax.verbs.serve.model import open_served

HI = [{"role": "user", "content": "It rains, and my scooter broke down."}]
MODELS = ("base", "calm", "brisk")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_server.write_folders(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def served(folders):
    lines: list[dict] = []
    with opened(folders, name="base") as found:
        yield dataclasses.replace(found, log=lambda line: lines.append(dict(line)))


@pytest.fixture(scope="module")
def at(served):
    with running(served) as address:
        yield address


@pytest.fixture(scope="module")
def client(at):
    with openai.OpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        yield client


def greedy(client, model: str, messages=HI, **given) -> str:
    answer = client.chat.completions.create(
        model=model, messages=messages, temperature=0, **{"max_tokens": 12} | given
    )
    return answer.choices[0].message.content


def streamed(client, model: str, messages=HI, **given) -> str:
    chunks = client.chat.completions.create(
        model=model, messages=messages, temperature=0, stream=True, **{"max_tokens": 12} | given
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def expected(folders, name: str, prompt: list[int], count: int) -> list[int]:
    """The greedy reply by the training forward of the base, or of it with one adapter alone."""
    base = hf.read_params(folders["base"], CONFIG)
    lora = tiny_server.LORAS.get(name)
    seed = list(tiny_server.LORAS).index(name) if lora else 0
    trees = [base] if lora is None else [tiny_server.adapter(lora, seed).leaves, base]
    model = merge(split(abstract(CONFIG, lora)).graphdef, *jax.tree.map(jnp.asarray, trees))
    tokens = list(prompt)
    for _ in range(count):
        row = jnp.asarray([tokens + [0] * (96 - len(tokens))])
        segments = (jnp.arange(96) < len(tokens)).astype(int)[None]
        hidden = FORWARD(model, row, segments)
        tokens.append(int(hidden[0, len(tokens) - 1].argmax()))
    return tokens[len(prompt) :]


@jax.jit
def FORWARD(model, tokens, segments):  # noqa: N802
    return model.logits(model.hidden(tokens, jnp.arange(96)[None], segments))


def test_rows_of_one_batch_are_answered_by_their_own_experts(served, folders):
    """Ranks and targets differ, one row is the base's, and a mixture is that of the products."""
    engine = e.Engine(served.worker.engine.weights, served.slots, key="base")
    prompt = tuple(range(20, 45))
    weights = [{}, {"calm": 1.0}, {"brisk": 1.0}, {"calm": 0.5, "brisk": 0.5}]
    asked = [
        served.experts.prepared(Request(prompt, 6, sampling=Sampling(temperature=0.0)), one)
        for one in weights
    ]
    together = [found.tokens.tolist() for found in engine.run(asked)]
    for tokens, name in zip(together, MODELS, strict=False):
        assert tokens == expected(folders, name, list(prompt), 6)
    assert len(set(map(tuple, together))) == 4
    alone = e.Engine(served.worker.engine.weights, served.slots, key="base").run(asked[3:])
    assert alone[0].tokens.tolist() == together[3]


def test_keys_and_values_may_be_kept_in_eight_bits(folders, client):
    """In bfloat16 all replies are those of float32, in eight bits most words of them."""
    for dtype in ("bfloat16", "float8_e4m3fn"):
        with opened(folders, name="base", cache_dtype=dtype) as narrow, running(narrow) as at:
            assert narrow.worker.engine.state.cache.layers[0].keys.dtype == dtype
            with openai.OpenAI(base_url=at.url, api_key="x", max_retries=0) as other:
                told = [greedy(other, model, max_tokens=6) for model in MODELS]
        assert len(set(told)) == 3
        same = [
            text == greedy(client, m, max_tokens=6) for m, text in zip(MODELS, told, strict=True)
        ]
        assert all(same) or dtype != "bfloat16"


def test_one_expert_behind_another_reads_the_prefix_anew(served):
    engine = e.Engine(served.worker.engine.weights, served.slots, key="base")
    cold = e.Engine(served.worker.engine.weights, served.slots, key="base")
    prompt = tuple(range(40, 70))
    calm, brisk = (
        served.experts.prepared(Request(prompt, 4, sampling=Sampling(temperature=0.0)), {name: 1})
        for name in ("calm", "brisk")
    )
    engine.run([calm])
    [warm], [first] = engine.run([brisk]), cold.run([brisk])
    assert (warm.cached_tokens, first.cached_tokens) == (0, 0)
    np.testing.assert_array_equal(warm.tokens, first.tokens)
    np.testing.assert_array_equal(warm.log_probs, first.log_probs)
    assert engine.run([calm])[0].cached_tokens == len(prompt) - 1


def test_eight_streams_of_mixed_experts_are_the_single_replies(client):
    asked = [
        (model, [{"role": "user", "content": text}])
        for model in (*MODELS, "calm")
        for text in ("It rains.", "My dog is ill, and I must work.")
    ]
    alone = [greedy(client, *one) for one in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: streamed(client, *one), asked))
    assert together == alone
    assert len(set(alone)) == 6


def test_a_stream_has_the_shape_that_clients_expect(at):
    body = {"model": "calm", "messages": HI, "stream": True, "max_tokens": 6, "temperature": 0}
    told = at.ask("/v1/chat/completions", body | {"stream_options": {"include_usage": True}})
    assert told.status == 200
    assert told.headers["content-type"].startswith("text/event-stream")
    *events, done = told.events
    assert done == "[DONE]"
    *chunks, last = map(json.loads, events)
    assert {(one["id"], one["object"], one["model"]) for one in chunks} == {
        (chunks[0]["id"], "chat.completion.chunk", "calm")
    }
    choices = [one["choices"][0] for one in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [one["finish_reason"] for one in choices] == [None] * (len(choices) - 1) + ["length"]
    assert choices[-1]["delta"] == {}
    assert all("content" in one["delta"] for one in choices[:-1])
    assert all(one["usage"] is None for one in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    counted = last["usage"]["prompt_tokens"]
    assert last["usage"]["total_tokens"] == counted + 6
    again = at.ask("/v1/chat/completions", body | {"stream": False})
    assert again.json["usage"]["prompt_tokens_details"] == {"cached_tokens": counted - 1}
    whole = "".join(one["delta"].get("content", "") for one in choices)
    assert again.json["choices"][0]["message"]["content"] == whole


def test_several_replies_draw_differently_and_a_seed_repeats_them(client):
    given = {"model": "brisk", "messages": HI, "n": 3, "max_tokens": 8, "temperature": 1.5}
    found = [client.chat.completions.create(**given, seed=seed) for seed in (-7, -7, 8)]
    texts = [[one.message.content for one in answer.choices] for answer in found]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3
    assert found[0].usage.completion_tokens == 24
    assert (
        found[0].usage.prompt_tokens
        == client.chat.completions.create(**given | {"n": 1}).usage.prompt_tokens
    )


def test_a_stop_string_is_cut_off_and_no_piece_of_it_is_streamed(client):
    text = greedy(client, "calm", max_tokens=16)
    stop = text[len(text) // 2 :][:3]
    wanted = text[: text.index(stop)]
    answer = client.chat.completions.create(
        model="calm", messages=HI, temperature=0, max_tokens=16, stop=[stop, "\0none"]
    )
    assert answer.choices[0].message.content == wanted
    assert answer.choices[0].finish_reason == "stop"
    assert streamed(client, "calm", max_tokens=16, stop=stop) == wanted


def test_log_probabilities_are_told_for_each_token(client):
    given = {"model": "base", "messages": HI, "temperature": 0, "max_tokens": 5}
    answer = client.chat.completions.create(**given, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == 5
    for one in content:
        assert len(one.top_logprobs) == 3
        assert one.logprob == max(top.logprob for top in one.top_logprobs)
        assert one.logprob == one.top_logprobs[0].logprob < 0
    raw = b"".join(bytes(one.bytes) for one in content)
    assert raw.decode("utf-8", "replace") == answer.choices[0].message.content
    chunks = client.chat.completions.create(**given, logprobs=True, stream=True)
    told = [
        one.logprob
        for chunk in chunks
        if chunk.choices[0].logprobs
        for one in chunk.choices[0].logprobs.content
    ]
    np.testing.assert_allclose(told, [one.logprob for one in content], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_an_echo_tells_the_likelihood_of_the_prompt(client, folders, name):
    """As lm-eval asks: ids, echo, one token more; by the training forward of that expert alone."""
    ids = list(range(30, 52))
    answer = client.completions.create(
        model=name, prompt=[ids, ids[:9]], echo=True, max_tokens=1, logprobs=1, temperature=0
    )
    base = hf.read_params(folders["base"], CONFIG)
    lora = tiny_server.LORAS.get(name)
    seed = list(tiny_server.LORAS).index(name) if lora else 0
    trees = [base] if lora is None else [tiny_server.adapter(lora, seed).leaves, base]
    model = merge(split(abstract(CONFIG, lora)).graphdef, *jax.tree.map(jnp.asarray, trees))
    row = jnp.asarray([ids + [0] * (96 - len(ids))])
    logits = FORWARD(model, row, (jnp.arange(96) < len(ids)).astype(int)[None])[0]
    wanted = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(ids) - 1), ids[1:]]
    for choice, count in zip(answer.choices, (22, 9), strict=True):
        told = choice.logprobs
        assert len(told.tokens) == len(told.top_logprobs) == len(told.text_offset) == count + 1
        assert told.token_logprobs[0] is None
        np.testing.assert_allclose(told.token_logprobs[1:-1], wanted[: count - 1], atol=1e-4)
        for log_prob, top in zip(told.token_logprobs[1:], told.top_logprobs[1:], strict=True):
            assert log_prob in top.values()
    greedy_place = int(logits[9:21].argmax(-1)[0])
    again = client.completions.create(
        model=name, prompt=[*ids[:10], greedy_place], echo=True, max_tokens=0, logprobs=1
    )
    told = again.choices[0].logprobs
    assert told.token_logprobs[10] == max(told.top_logprobs[10].values())
    assert again.usage.completion_tokens == 0


def test_completions_go_on_from_texts_and_ids(client, served):
    text = "It rains."
    ids = served.tokenizer.tokenizer.backend_tokenizer.encode(text).ids
    given = {"model": "calm", "max_tokens": 6, "temperature": 0}
    answer = client.completions.create(prompt=[text, text], n=1, **given)
    assert answer.choices[0].text == answer.choices[1].text
    assert client.completions.create(prompt=ids, **given).choices[0].text == answer.choices[0].text
    assert client.completions.create(prompt=text, echo=True, **given).choices[0].text == text + (
        answer.choices[0].text
    )
    chunks = client.completions.create(prompt=text, echo=True, stream=True, logprobs=2, **given)
    parts = [chunk.choices[0] for chunk in chunks]
    assert "".join(one.text for one in parts) == text + answer.choices[0].text
    told = [token for one in parts for token in one.logprobs.tokens]
    assert len(told) == len(ids) + 6
    assert parts[-1].finish_reason == "length"


CHAT = {"model": "base", "messages": HI, "max_tokens": 2}
BAD = {
    "no JSON": (b"{", "not JSON"),
    "no object": ([1], "no JSON object"),
    "deep": (b"[" * 100_000, "not JSON"),
    "a number that is none": (b'{"temperature": NaN}', "NaN"),
    "no model": ({"messages": HI}, "model is null"),
    "no message": ({"model": "base"}, "messages is null"),
    "an empty list": (CHAT | {"messages": []}, "messages"),
    "a message that is none": (CHAT | {"messages": ["Hi"]}, r"messages[0]"),
    "another role": (CHAT | {"messages": [{"role": "god", "content": "x"}]}, "messages[0].role"),
    "no content": (CHAT | {"messages": [{"role": "user"}]}, "messages[0].content"),
    "an image": (
        CHAT | {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0]",
    ),
    "half a character": (
        b'{"model": "base", "messages": [{"role": "user", "content": "\\ud83d"}]}',
        "messages[0].content",
    ),
    "a late system message": (
        CHAT | {"messages": [*HI, {"role": "system", "content": "x"}]},
        "must be the first",
    ),
    "tools": (CHAT | {"tools": [{"type": "function"}]}, "tools"),
    "a temperature": (CHAT | {"temperature": -1}, "temperature is -1"),
    "a temperature that is none": (CHAT | {"temperature": "hot"}, "temperature"),
    "top_p": (CHAT | {"top_p": 0}, "top_p is 0"),
    "no tokens": (CHAT | {"max_tokens": 0}, "max_tokens is 0"),
    "too many tokens": (CHAT | {"max_tokens": 5000}, "exceed the 96 places"),
    "no completion tokens": (CHAT | {"max_completion_tokens": 0}, "max_completion_tokens is 0"),
    "true tokens": (CHAT | {"max_tokens": True}, "max_tokens is true"),
    "too long": (CHAT | {"messages": [{"role": "user", "content": "a b " * 99}]}, "96 places"),
    "too many replies": (CHAT | {"n": 100}, "at most"),
    "an empty stop": (CHAT | {"stop": [""]}, "stop"),
    "biases": (CHAT | {"logit_bias": {"x": 1}}, "logit_bias"),
    "a bias beyond": (CHAT | {"logit_bias": {"5": 1e9}}, "logit_bias"),
    "top without log-probabilities": (CHAT | {"top_logprobs": 2}, "top_logprobs"),
    "options without a stream": (CHAT | {"stream_options": {}}, "stream_options"),
    "a format": (CHAT | {"response_format": {"type": "json_object"}}, "response_format"),
    "a field of nobody": (CHAT | {"temprature": 1}, "temprature"),
    "frequency": (CHAT | {"frequency_penalty": 0.5}, "frequency_penalty"),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_request_is_a_400_that_names_the_field(at, why):
    body, says = BAD[why]
    told = at.ask("/v1/chat/completions", body)
    assert told.status == 400, told.raw
    error = told.json["error"]
    assert says in error["message"] or error["param"] == says
    assert error["type"] == "invalid_request_error"


def test_other_bad_requests(at, served):
    assert at.ask("/v1/chat/completions", CHAT | {"model": "gpt"}).status == 404
    assert at.ask("/v1/chat/completions", CHAT, content_type="text/plain").status == 415
    assert at.ask("/v1/chat/completions").status == 405
    assert at.ask("/v1/nothing").json["error"]["message"].startswith("GET /v1/nothing")
    big = b'{"x": "' + b"y" * served.settings.body + b'"}'
    assert at.ask("/v1/chat/completions", big).status == 413
    given = {"model": "base", "prompt": [0, 3000], "max_tokens": 2}
    assert "outside 0 to" in at.ask("/v1/completions", given).json["error"]["message"]
    for prompt in ([], "", [[1], "x"], [True], [-1], None):
        assert at.ask("/v1/completions", given | {"prompt": prompt}).status == 400, prompt


def test_fields_that_change_nothing_are_let_pass(client, at):
    text = greedy(client, "base", max_tokens=3)
    parts = [{"type": "text", "text": HI[0]["content"][:5]}]
    parts.append({"type": "text", "text": HI[0]["content"][5:]})
    harmless = {
        "messages": [{"role": "user", "content": parts, "name": "me"}],
        "user": "u",
        "metadata": {},
        "store": False,
        "tools": None,
        "stop": None,
        "seed": None,
        "response_format": {"type": "text"},
        "max_completion_tokens": 3,
        "temperature": 0,
        "model": "base",
    }
    told = at.ask("/v1/chat/completions", harmless)
    assert told.json["choices"][0]["message"]["content"] == text
    developer = [{"role": "developer", "content": "Be brief."}, *HI]
    system = [{"role": "system", "content": "Be brief."}, *HI]
    assert greedy(client, "base", developer) == greedy(client, "base", system) != text


def test_models_are_listed_and_health_and_metrics_tell(client, at, served):
    assert [one.id for one in client.models.list()] == ["base", "calm", "brisk"]
    assert client.models.retrieve("calm").id == "calm"
    with pytest.raises(openai.NotFoundError, match="no model 'x/y'"):
        client.models.retrieve("x/y")
    assert at.ask("/health").json["status"] == "ok"
    before = at.ask("/metrics").raw.decode()
    greedy(client, "calm", max_tokens=5)
    after = at.ask("/metrics").raw.decode()

    def counted(text: str, name: str) -> float:
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    answered = 'hen_requests_total{model="calm",status="200"}'
    assert counted(after, answered) == counted(before, answered) + 1
    written = 'hen_tokens_total{kind="written"}'
    assert counted(after, written) == counted(before, written) + 5
    assert counted(after, "hen_slots ") == 4


def idle(served) -> bool:
    engine = served.worker.call(lambda engine: engine.busy)
    return not engine.result() and served.admission.inside == 0


def until(true, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_frees_the_slot(at, served, monkeypatch, stream):
    cancelled = []
    cancel = e.Engine.cancel
    monkeypatch.setattr(
        e.Engine, "cancel", lambda self, n: cancelled.append(found := cancel(self, n)) or found
    )
    slow(monkeypatch, served)
    connection = at.connect()
    body = CHAT | {"max_tokens": 60, "stream": stream, "ignore_eos": True}
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
    )
    if stream:
        assert connection.getresponse().read(10)
    until(lambda: served.worker.engine.writing)
    connection.sock.close()
    connection.close()
    until(lambda: cancelled)
    until(lambda: idle(served))
    assert len(cancelled[0].tokens) < 60


def test_a_slot_is_free_at_the_step_after_its_client_went(at, served, monkeypatch):
    """The step under way when the server sees it is the last that writes the reply."""
    engine, step = served.worker.engine, served.worker.engine.step
    within, go, writing = threading.Event(), threading.Event(), []

    def held() -> list:
        writing.append(len(engine.writing))
        if engine.writing and not go.is_set():
            within.set()
            assert go.wait(10)
        return step()

    monkeypatch.setattr(engine, "step", held)
    connection = at.connect()
    body = json.dumps(CHAT | {"max_tokens": 60, "ignore_eos": True})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    assert within.wait(10)
    before = len(writing)
    connection.sock.close()
    connection.close()
    until(lambda: served.worker._calls.qsize())
    go.set()
    until(lambda: idle(served))
    assert writing[before - 1] == 1
    assert not any(writing[before:])


def slow(monkeypatch, served) -> None:
    """Steps that take long enough for something to happen meanwhile."""
    step = served.worker.engine.step
    monkeypatch.setattr(served.worker.engine, "step", lambda: (time.sleep(0.02), step())[1])


def test_a_full_queue_is_a_429_that_says_when_to_come_again(at, served, client, monkeypatch):
    monkeypatch.setattr(served.admission, "room", 2)
    slow(monkeypatch, served)
    with ThreadPoolExecutor(2) as pool:
        begun = [
            pool.submit(greedy, client, "base", max_tokens=40, extra_body={"ignore_eos": True})
            for _ in range(2)
        ]
        until(lambda: served.admission.inside == 2)
        told = at.ask("/v1/chat/completions", CHAT)
        assert told.status == 429
        assert 1 <= int(told.headers["retry-after"]) <= 60
        assert told.json["error"]["type"] == "rate_limit_error"
        streaming = at.ask("/v1/chat/completions", CHAT | {"stream": True})
        assert streaming.status == 429
        assert len({one.result() for one in begun}) == 1
    assert at.ask("/v1/chat/completions", CHAT).status == 200


def test_what_takes_too_long_fails_in_the_stream_or_as_a_504(served, monkeypatch):
    short = dataclasses.replace(served, settings=dataclasses.replace(served.settings, timeout=0.05))
    slow(monkeypatch, served)
    body = CHAT | {"max_tokens": 60, "ignore_eos": True}
    with running(short) as at:
        told = at.ask("/v1/chat/completions", body)
        assert told.status == 504
        assert told.headers["x-should-retry"] == "false"
        streamed = at.ask("/v1/chat/completions", body | {"stream": True})
        assert streamed.status == 200
        assert json.loads(streamed.events[-1])["error"]["code"] == "timeout"
        with (
            openai.OpenAI(base_url=at.url, api_key="x", max_retries=0) as client,
            pytest.raises(openai.APIError, match=r"not finished in 0\.05 s"),
        ):
            list(client.chat.completions.create(**body_of(body), stream=True))
    until(lambda: idle(served))


def body_of(body):
    return {key: value for key, value in body.items() if key != "ignore_eos"} | {
        "extra_body": {"ignore_eos": True}
    }


def test_experts_come_and_go_without_a_compilation(at, served, folders, client, tmp_path):
    text = greedy(client, "calm")
    programs = [program._cache_size() for program in (e._step, e._prefill, e._admit)]
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    new = {"lora_name": "late", "lora_path": str(folders["calm"])}
    assert at.ask(load, new).status == 200
    assert greedy(client, "late") == text
    assert at.ask(load, new).json["error"]["message"].startswith("there is an expert 'late'")
    told = at.ask(load, new | {"lora_name": "more"})
    assert "all 3 places for experts are taken" in told.json["error"]["message"]
    assert at.ask(unload, {"lora_name": "late"}).status == 200
    assert at.ask(unload, {"lora_name": "late"}).status == 404
    assert at.ask("/v1/chat/completions", CHAT | {"model": "late"}).status == 404
    # Another one in the same place, and under the same name: nothing of the first is used.
    new["lora_path"] = str(folders["brisk"])
    assert at.ask(load, new).status == 200
    assert greedy(client, "late") == greedy(client, "brisk") != text
    assert at.ask(unload, {"lora_name": "late"}).status == 200
    assert [p._cache_size() for p in (e._step, e._prefill, e._admit)] == programs
    for name, path, says in (
        ("x", tmp_path, "adapter_config.json"),
        ("x", "\0", "lora_path is"),
        ("base", folders["calm"], "cannot be called"),
        ("auto", folders["calm"], "cannot be called"),
        ("a b", folders["calm"], "cannot be called"),
    ):
        told = at.ask(load, {"lora_name": name, "lora_path": str(path)})
        assert told.status == 400
        assert says in told.json["error"]["message"]


def test_no_request_of_a_burst_waits_for_a_compilation(folders):
    """Five rows and 150 places are no other test's, so that no program of theirs is used."""
    with opened(folders, name="base", rows=5, places=150, warm_up=True) as served:
        engine = e.Engine(served.worker.engine.weights, served.slots, key="base")
        programs = (e._step, e._prefill, e._admit, e._copy)
        before = [program._cache_size() for program in programs]
        greedy, system = Sampling(temperature=0.0), tuple(range(40, 70))
        rows = [
            served.experts.prepared(
                Request(
                    (*system[: 30 * (n % 2)], n + 3, *range(80, 80 + length)),
                    3,
                    sampling=greedy,
                    tops=False,
                ),
                {name: 1.0},
            )
            for length in (9, 50)
            for n, name in enumerate(["calm", "brisk"] * 2 + ["calm"])
        ]
        engine.run(rows[:1])
        engine.run(rows[:5])
        engine.run(rows[5:])
        assert [program._cache_size() for program in programs] == before


def test_the_first_expert_of_all_compiles_nothing_either(served, folders):
    given = {"model": folders["base"], "experts": (), "settings": served.settings}
    bare = open_served(dataclasses.replace(tiny_server.SMALL, **given))
    engine = e.Engine(bare.worker.engine.weights, bare.slots, key="base")
    request = Request(tuple(range(20, 40)), 6, sampling=Sampling(temperature=0.0))
    [plain] = engine.run([request])
    programs = [program._cache_size() for program in (e._step, e._prefill, e._admit)]
    given = tiny_server.adapter(tiny_server.LORAS["calm"], 0)
    bare.experts.load(engine, "calm", given, "memory")
    [tuned] = engine.run([bare.experts.prepared(request, {"calm": 1.0})])
    [again] = engine.run([request])
    assert [p._cache_size() for p in (e._step, e._prefill, e._admit)] == programs
    assert tuned.tokens.tolist() != plain.tokens.tolist() == again.tokens.tolist()
    bare.worker.stop()


def test_an_expert_that_is_unloaded_ends_its_reply_and_keeps_its_place_so_long(served):
    engine = e.Engine(served.worker.engine.weights, served.slots, key="base")
    experts = Experts(served.experts.shelf)
    experts.named = served.experts.named
    request = Request(tuple(range(20, 40)), 12, sampling=Sampling(temperature=0.0))
    alone = engine.run([experts.prepared(request, {"calm": 1.0})])[0]
    number = engine.submit(experts.prepared(request, {"calm": 1.0}))
    events = engine.step()
    experts.unload("calm")
    with pytest.raises(InputError, match="was unloaded"):
        experts.prepared(request, {"calm": 1.0})
    given = tiny_server.adapter(tiny_server.LORAS["brisk"], 9)
    loaded = experts.load(engine, "other", given, "memory")
    assert loaded.place not in (experts.named["brisk"].place, served.experts.named["calm"].place)
    with pytest.raises(InputError, match="all 3 places"):
        experts.load(engine, "third", given, "memory")
    while engine.busy:
        events += engine.step()
    [done] = [one.completion for one in events if one.completion and one.id == number]
    assert done.tokens.tolist() == alone.tokens.tolist()
    assert experts.load(engine, "third", given, "memory").place == 0


def test_an_adapter_that_would_spoil_others_is_refused(served):
    shelf = served.experts.shelf
    lora, leaves = tiny_server.adapter(tiny_server.LORAS["calm"], 0)
    broken = jax.tree.map(lambda x: x * np.nan, leaves)
    for given, says in (
        (tiny_server.Adapter(lora, broken), "not finite"),
        (tiny_server.adapter(dataclasses.replace(lora, rank=5), 0), "--max-rank 5"),
        (tiny_server.Adapter(lora, leaves | {"score": {"kernel": np.ones(3)}}), "score/kernel"),
    ):
        with pytest.raises(InputError, match=says):
            Experts(shelf).load(served.worker.engine, "x", given, "memory")


def test_a_router_chooses_and_the_client_is_told(served):
    weights = {"calm": 1.0}
    routed = dataclasses.replace(served, route=lambda messages: weights)
    with (
        running(routed) as at,
        openai.OpenAI(base_url=at.url, api_key="x", max_retries=0) as client,
    ):
        wanted = greedy(client, "calm"), greedy(client, "base")
        told = at.ask("/v1/chat/completions", CHAT | {"model": "auto"})
        assert (told.json["model"], told.headers["x-hen-experts"]) == ("calm", "calm=1")
        assert greedy(client, "auto") == wanted[0]
        weights = {"gone": 1.0}
        assert greedy(client, "auto") == wanted[1]
        weights = {"calm": 0.25, "brisk": 0.75}
        told = at.ask("/v1/chat/completions", CHAT | {"model": "auto"})
        assert told.json["model"] == "auto"
        assert told.headers["x-hen-experts"] == "calm=0.25,brisk=0.75"
        assert "auto" in [one.id for one in client.models.list()]


def test_a_guard_sees_replies_before_anybody_does(served):
    lines = []

    def guard(conversation, reply):
        seen.append((conversation[-1].content, reply))
        return Verdict("replace", "Talk to a person.", ("method",))

    seen = []
    guarded = dataclasses.replace(served, guard=guard, log=lambda line: lines.append(dict(line)))
    with (
        running(guarded) as at,
        openai.OpenAI(base_url=at.url, api_key="x", max_retries=0) as client,
    ):
        assert greedy(client, "calm") == streamed(client, "calm") == "Talk to a person."
        assert at.ask("/v1/completions", {"model": "calm", "prompt": "Hi"}).status == 403
        told = at.ask("/v1/chat/completions", CHAT | {"logprobs": True})
        assert "logprobs: with a guard" in told.json["error"]["message"]
    assert seen[0] == seen[1]
    assert seen[0][0] == HI[0]["content"]
    assert [line["guard"] for line in lines] == [["method"]] * 2


def test_a_conversation_that_no_router_can_read_is_a_400(served):
    def route(messages):
        raise InputError("a conversation without a message of the user has no route")

    with running(dataclasses.replace(served, route=route)) as at:
        told = at.ask("/v1/chat/completions", CHAT | {"model": "auto"})
    assert (told.status, told.json["error"]["param"]) == (400, "messages")


def test_a_key_is_asked_for(served):
    with running(dataclasses.replace(served, key="sesame")) as at:
        assert at.ask("/v1/models").status == 401
        assert at.ask("/metrics").status == 401
        assert at.ask("/v1/models", authorization="Bearer wrong").status == 401
        assert at.ask("/v1/models", authorization="Bearer sesame").status == 200
        assert at.ask("/health").status == 200
        shut = dataclasses.replace(served.settings, loading=False)
    with running(dataclasses.replace(served, settings=shut)) as at:
        assert at.ask("/v1/load_lora_adapter", {}).status == 403


@pytest.mark.parametrize("log_text", [False, True])
def test_the_log_holds_what_is_said_only_where_asked(served, log_text):
    lines = []
    settings = dataclasses.replace(served.settings, log_text=log_text)
    logged = dataclasses.replace(served, settings=settings, log=lambda x: lines.append(dict(x)))
    with running(logged) as at:
        told = at.ask("/v1/chat/completions", CHAT)
    [line] = lines
    assert (line["status"], line["tokens"], line["model"]) == ("200", 2, "base")
    text = told.json["choices"][0]["message"]["content"]
    assert ("scooter" in json.dumps(line)) == log_text
    assert (line.get("replies") == [text]) == log_text


def test_replies_under_way_end_when_the_server_is_to_stop(served, monkeypatch):
    slow(monkeypatch, served)
    body = CHAT | {"max_tokens": 40, "stream": True, "ignore_eos": True}
    with running(served) as at:
        found = []
        thread = threading.Thread(target=lambda: found.append(at.ask("/v1/chat/completions", body)))
        thread.start()
        until(lambda: served.worker.engine.writing)
        at.server.should_exit = True
        thread.join()
        at.thread.join()
        with pytest.raises(OSError, match="refused"):
            at.ask("/health")
    events = found[0].events
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"


def test_a_defect_of_the_engine_is_told_to_all_and_to_health(folders, capsys):
    with opened(folders, name="base") as served, running(served) as at:
        served.worker.engine.step = lambda: 1 / 0
        told = at.ask("/v1/chat/completions", CHAT)
        assert told.status == 500
        assert told.headers["x-should-retry"] == "false"
        assert at.ask("/v1/chat/completions", CHAT).status == 500
        assert at.ask("/health").status == 503
    assert "ZeroDivisionError" in capsys.readouterr().err

"""Whatever is sent, the answer is one that the API has, and the server answers the next one."""

import asyncio
import copy
import json
import random

import pytest
import tiny_server
from tiny_server import opened

from hen_jax.serving.app import app_of

SEEDS = [
    {
        "model": "calm",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}],
        "max_tokens": 2,
        "temperature": 0.5,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 3,
    },
    {
        "model": "base",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "你好"}]}],
        "max_completion_tokens": 2,
        "n": 2,
        "logit_bias": {"5": 2},
        "top_k": 3,
        "min_p": 0.1,
        "presence_penalty": 1,
    },
    {"model": "brisk", "prompt": [[1, 2, 3], [4]], "max_tokens": 1, "echo": True, "logprobs": 1},
    {"model": "base", "prompt": ["It rains.", "So"], "max_tokens": 2, "stream": True, "n": 2},
    {"lora_name": "late", "lora_path": "nowhere"},
]
VALUES = [
    *(None, True, False, 0, -1, 1, 2, 1.5, 1e308, -1e-9, 2**31, 2**63, 10**40, "", "x", "base"),
    *("\0", "\ud800", "é" * 300, "<|im_end|>", [], {}, [[]], [None], {"a": 1}, [1, 2], ["a", 1]),
    *([2047], [2048], {"type": "text"}, [{"role": "user", "content": "x"}], "auto", "calm"),
]
NAMES = [
    *sorted({name for seed in SEEDS for name in seed}),
    "tools",
    "best_of",
    "suffix",
    "user",
    "zz",
]
PATHS = {
    b'"messages"': "/v1/chat/completions",
    b'"prompt"': "/v1/completions",
    b'"lora_name"': "/v1/load_lora_adapter",
    b"x": "/v1/models/x",
    b"": "/x",
}
"""A path, by what a body for it holds."""


def mutated(rng: random.Random) -> bytes:
    """A request with some things changed, or bytes that are hardly one."""
    body = copy.deepcopy(rng.choice(SEEDS))
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        spoil(body, rng)
    raw = json.dumps(body).encode()
    if rng.random() < 0.15:
        place = rng.randrange(len(raw))
        raw = raw[:place] + bytes([rng.randrange(256)]) * rng.randrange(3) + raw[place + 1 :]
    return raw[: rng.randrange(len(raw))] if rng.random() < 0.05 else raw


def path_of(raw: bytes, rng: random.Random) -> str:
    """Where it belongs, mostly."""
    if rng.random() < 0.1:
        return rng.choice(list(PATHS.values()))
    return next(path for held, path in PATHS.items() if held in raw)


def spoil(body: dict, rng: random.Random) -> None:
    """One value somewhere becomes another, goes, or is new."""
    place = body
    while rng.random() < 0.4:
        inner = list(place.values() if isinstance(place, dict) else place)
        deeper = [one for one in inner if isinstance(one, dict | list) and one]
        if not deeper:
            break
        place = rng.choice(deeper)
    value = copy.deepcopy(rng.choice(VALUES))
    if isinstance(place, list):
        place[rng.randrange(len(place))] = value
    elif place and rng.random() < 0.2:
        del place[rng.choice(list(place))]
    else:
        place[rng.choice([*place, rng.choice(NAMES)])] = value


async def ask(app, path: str, raw: bytes) -> tuple[int, bytes]:
    """A request through the application, without a socket."""
    sent = [{"type": "http.request", "body": raw, "more_body": False}]
    told, done = [], asyncio.Event()

    async def receive():
        if sent:
            return sent.pop()
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        told.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            done.set()

    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"headers": headers, "query_string": b"", "http_version": "1.1", "scheme": "http"}
    await app(scope | {"root_path": "", "asgi": {"version": "3.0"}}, receive, send)
    return told[0]["status"], b"".join(one.get("body", b"") for one in told[1:])


def well(status: int, raw: bytes, stream: bool) -> bool:
    """Whether it is an answer that clients of the API can read."""
    if status != 200:
        error = json.loads(raw)["error"]
        return 400 <= status < 500 and bool(error["message"]) and len(error["message"]) < 700
    if not stream:
        return bool(json.loads(raw)["choices"])
    events = [line[6:] for line in raw.decode().split("\n") if line.startswith("data: ")]
    return events[-1] == "[DONE]" and all(json.loads(one) for one in events[:-1])


async def fuzz(app, count: int, seed: int) -> list[tuple[int, bytes]]:
    rng, found = random.Random(seed), []
    for _ in range(0, count, 8):
        batch = [(path_of(raw, rng), raw) for raw in (mutated(rng) for _ in range(8))]
        answers = await asyncio.gather(*(ask(app, *one) for one in batch))
        for (_, raw), (status, answer) in zip(batch, answers, strict=True):
            stream = answer.startswith((b"data: ", b": ping"))
            assert well(status, answer, stream), (raw, status, answer)
            found.append((status, raw))
    return found


def all_well(folders, count: int) -> None:
    with opened(folders, name="base") as served:
        found = asyncio.run(fuzz(app_of(served), count, seed=5))
        assert served.admission.inside == 0
        assert not served.worker.failed
        assert not served.worker.call(lambda engine: engine.busy).result()
    statuses = [status for status, _ in found]
    assert statuses.count(200) > 0.04 * count  # some get through, and are answered
    assert {200, 400, 404} <= set(statuses)


def test_any_request_has_an_answer(tmp_path):
    all_well(tiny_server.write_folders(tmp_path), 240)


@pytest.mark.slow  # minutes: a third of them are answered
def test_ten_thousand_requests_have_answers(tmp_path):
    all_well(tiny_server.write_folders(tmp_path), 10_000)

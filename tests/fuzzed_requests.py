"""Requests to `hen serve` spoilt at random: each has an answer that the API has."""

import asyncio
import copy
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import tiny_server

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


class Answered(NamedTuple):
    """A request, and what came back."""

    path: str
    raw: bytes
    status: int
    answer: bytes

    @property
    def fault(self) -> str | None:
        """What is wrong with the answer; None where clients of the API can read it."""
        try:
            good = self._is_readable()
        except (ValueError, LookupError, TypeError) as error:
            return f"{self.path} {self.raw!r}: {self.status} {self.answer[:300]!r}: {error!r}"
        return None if good else f"{self.path} {self.raw!r}: {self.status} {self.answer[:300]!r}"

    def _is_readable(self) -> bool:
        if self.status != 200:
            error = json.loads(self.answer)["error"]
            return 400 <= self.status < 500 and 0 < len(error["message"]) < 700
        if not self.answer.startswith((b"data: ", b": ping")):
            return bool(json.loads(self.answer)["choices"])
        lines = self.answer.decode().split("\n")
        events = [line[6:] for line in lines if line.startswith("data: ")]
        return events[-1] == "[DONE]" and all(json.loads(one) for one in events[:-1])


async def _fuzz(app: Any, count: int, seed: int) -> list[Answered]:
    draw, found = random.Random(seed), []
    for start in range(0, count, 8):
        raws = [mutated(draw) for _ in range(min(8, count - start))]
        paths = [path_of(raw, draw) for raw in raws]
        asked = map(ask, [app] * len(raws), paths, raws)
        for path, raw, answer in zip(
            paths, raws, await asyncio.gather(*asked, return_exceptions=True), strict=True
        ):
            told = (500, repr(answer).encode()) if isinstance(answer, BaseException) else answer
            found.append(Answered(path, raw, *told))
    return found


def send_all(folders: dict[str, Path], count: int, seed: int) -> tuple[list[Answered], list[str]]:
    """Every answer to `count` spoilt requests, and all that was wrong: with an answer, or with what
    the server was left in."""
    with tiny_server.opened(folders, name="base") as served:
        found = asyncio.run(_fuzz(app_of(served), count, seed))
        left = {
            "requests are still inside": served.admission.inside != 0,
            "the worker has failed": served.worker.failed,
            "the engine is busy": served.worker.call(lambda engine: engine.busy).result(),
        }
    faults = [fault for one in found if (fault := one.fault)]
    return found, faults + [what for what, is_so in left.items() if is_so]

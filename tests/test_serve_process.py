"""`hen serve` in a process of its own, as its users have it: many clients, one of them the last."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import tiny_server
from tiny_run import environment
from tiny_server import Address

from hen_jax.evaluation.routing import Calibrated
from hen_jax.runs.model import WEIGHT_FILES, fingerprint
from hen_jax.runs.routing import Router, RouterReading, write_router
from hen_jax.runs.tiny_model import CONFIG

pytestmark = pytest.mark.slow  # processes, which compile


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    parent = tmp_path_factory.mktemp("process")
    found = tiny_server.write_folders(parent)
    kernel = np.random.default_rng(0).standard_normal((CONFIG.width, 2))
    base = {
        "folder": str(found["base"]),
        "layer": 1,
        "weights_sha256": fingerprint(found["base"], WEIGHT_FILES),
    }
    router = Router(
        ("calm", "brisk"), kernel, np.zeros(2), Calibrated(1.0, 0.0), RouterReading(layer=1), base
    )
    write_router(parent / "router", router, {})
    return found | {"router": parent / "router"}


@contextlib.contextmanager
def serving(folders, *flags: str) -> Iterator[tuple[subprocess.Popen, Address, "Lines"]]:
    """The process, answering, and what it prints; it is ended with the block."""
    command = [sys.executable, "-m", "hen_jax", "serve", f"--model={folders['base']}", "--port=0"]
    command += [f"--expert={name}={folders[name]}" for name in tiny_server.LORAS]
    with subprocess.Popen(
        [*command, *flags],
        env=environment(folders["base"].parent),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            found = re.search(r":(\d+) \(page\)", process.stdout.readline())
            assert found is not None
            yield process, Address(int(found[1]), None, None), Lines(process.stdout)
        finally:
            process.kill()


class Lines(threading.Thread):
    """What a process prints, read as it comes: it would wait for a reader of a full pipe."""

    def __init__(self, stdout):
        super().__init__(daemon=True)
        self.stdout, self.found = stdout, []
        self.start()

    def run(self):
        self.found += [line.rstrip("\n") for line in self.stdout]

    def all(self) -> list[str]:
        """All of them, when the process has ended."""
        self.join(20)
        return self.found


def asked(model: str, text: str, **given):
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8} | given


def reply(client, body, stream: bool) -> str:
    found = client.chat.completions.create(**body, stream=stream)
    if not stream:
        return found.choices[0].message.content
    return "".join(chunk.choices[0].delta.content or "" for chunk in found)


def test_five_hundred_requests_over_five_models_do_not_mix(folders):
    """Greedy, by the official client, eight at a time: each reply is the one asked for alone."""
    flags = (f"--router={folders['router']}", "--routing=soft", "--rows=8", "--places=128")
    bodies = [
        asked(model, f"{'It rains. ' * (n % 7)}{n}?")
        for n in range(20)
        for model in ("base", "calm", "brisk", "late", "auto")
    ]
    late = {"lora_name": "late", "lora_path": str(folders["brisk"])}
    with (
        serving(folders, *flags, "--name=base", "--max-experts=3") as (process, at, lines),
        openai.OpenAI(base_url=at.url, api_key="x", max_retries=0) as client,
    ):
        assert at.ask("/v1/load_lora_adapter", late).status == 200
        alone = [reply(client, body, False) for body in bodies]
        rng = np.random.default_rng(0)
        order = np.concatenate([rng.permutation(len(bodies)) for _ in range(5)])
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda n: reply(client, bodies[order[n]], n % 2 == 0), range(len(order)))
            )
        counted = at.ask("/metrics").raw.decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert len(lines.all()) == 601  # one a request, and that it stopped
    assert found == [alone[n] for n in order]
    assert len(found) == 500
    assert len(set(alone)) >= 20  # a random model has few words; "late" is "brisk" besides
    answered = [
        float(line.split()[-1])
        for line in counted.splitlines()
        if line.startswith("hen_requests_total{") and 'status="200"' in line
    ]
    assert sum(answered) == 600
    assert "hen_slots_active 0" in counted


class Stream(threading.Thread):
    """A reply of many tokens, read as it comes."""

    def __init__(self, at: Address, tokens: int):
        super().__init__(daemon=True)
        body = asked("calm", "Hi", max_tokens=tokens, stream=True, ignore_eos=True)
        self.connection = at.connect()
        self.connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
        )
        self.sock = self.connection.sock
        self.answer = self.connection.getresponse()
        self.events = [self.answer.readline() for _ in range(8)]
        self.start()

    def run(self):
        with contextlib.suppress(OSError, http.client.IncompleteRead):  # the client went away
            self.events += list(self.answer)

    def close(self) -> None:
        """The client goes away, if it is still there."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.join(20)
        self.answer.close()
        self.connection.close()

    @property
    def last(self) -> str:
        return [line for line in self.events if line.startswith(b"data: ")][-1].decode()[6:].strip()


def test_sigterm_lets_streams_end_and_nobody_else_in(folders):
    with serving(folders, "--rows=2", "--places=1024", "--chunk=1") as (process, at, printed):
        streams = [Stream(at, 900), Stream(at, 600)]
        assert b"<title>" in at.ask("/").raw
        os.kill(process.pid, signal.SIGTERM)
        until(lambda: refuses(at))
        assert all(stream.is_alive() for stream in streams)
        for stream in streams:
            stream.join(60)
            stream.close()
        assert process.wait(60) == 0
        *lines, said = printed.all()
    assert [stream.last for stream in streams] == ["[DONE]"] * 2
    assert sorted(json.loads(line)["tokens"] for line in lines) == [600, 900]
    assert said.startswith("stopped")
    assert "Hi" not in str(lines)  # what is said is logged only where asked


def refuses(at: Address) -> bool:
    """Whether a new client cannot connect."""
    with contextlib.closing(at.connect()) as connection:
        try:
            connection.connect()
        except ConnectionError:  # refused, or reset where it was let in at the last moment
            return True
    return False


def until(true, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end


def test_a_stream_that_outlives_the_drain_says_so(folders):
    flags = ("--rows=1", "--places=2048", "--chunk=1", "--drain=0.2")
    with serving(folders, *flags) as (process, at, _):
        stream = Stream(at, 1900)
        body = asked("calm", "Hi", stream=True)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at.ask, "/v1/chat/completions", body)
            until(lambda: b"hen_waiting 1" in at.ask("/metrics").raw)
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(30) == 0
            told = waiting.result()
        stream.join(10)
        stream.close()
    for last in (stream.last, told.events[-1]):
        assert json.loads(last)["error"]["code"] == "stopping"


def test_a_client_that_goes_away_leaves_its_slot_to_the_next(folders):
    """One slot, taken by a reply that would take long: the next is answered long before it ends."""
    with serving(folders, "--rows=1", "--places=2048", "--chunk=1") as (process, at, printed):
        stream = Stream(at, 2000)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at.ask, "/v1/chat/completions", asked("brisk", "Hi"))
            until(lambda: b"hen_waiting 1" in at.ask("/metrics").raw)
            stream.close()
            assert waiting.result().status == 200
        assert b"hen_slots_active 0" in at.ask("/metrics").raw
        process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in printed.all()[:2]]
    assert [line["status"] for line in lines] == ["closed", "200"]

"""A tiny model with two experts behind `hen serve`'s application, in a thread."""

import contextlib
import dataclasses
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tiny_folder
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tiny_model import stirred

from hen_jax.io import peft
from hen_jax.models.config import LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.runs.tiny_model import CONFIG
from hen_jax.serving.app import app_of
from hen_jax.serving.served import Served, ServerSettings
from hen_jax.serving.shelf import Adapter
from hen_jax.verbs.serve.model import ServeRequest, open_served

LORAS = {
    "calm": LoraConfig(2, 8.0, ("q", "v")),
    "brisk": LoraConfig(3, 3.0, ("k", "o", "gate", "down")),
}
SMALL = ServeRequest(rows=4, places=96, warm_up=False, max_experts=3, max_rank=4)


def adapter(lora: LoraConfig, seed: int) -> Adapter:
    shapes = split(abstract(CONFIG, lora)).adapter
    return Adapter(lora, stirred(shapes, seed))


def write_folders(parent: Path) -> dict[str, Path]:
    """The base's folder, and each expert's."""
    found = {"base": tiny_folder.write_tiny_folder(parent / "base")}
    for seed, (name, lora) in enumerate(LORAS.items()):
        found[name] = parent / name
        leaves = adapter(lora, seed).leaves
        peft.write_adapter(found[name], CONFIG, lora, leaves, base_model="org/base")
    return found


@contextlib.contextmanager
def opened(folders: dict[str, Path], **changes) -> Iterator[Served]:
    """The model with its experts, its log kept in the list `served.log.lines`."""
    given = {name: changes.pop(name) for name in ("key", "log") if name in changes}
    settings = ServerSettings(**changes.pop("settings", {"loading": True}))
    request = dataclasses.replace(
        SMALL,
        model=folders["base"],
        experts=tuple(f"{name}={folders[name]}" for name in LORAS),
        settings=settings,
        **changes,
    )
    served = open_served(request, **{"log": list, **given})
    try:
        yield served
    finally:
        served.worker.stop()
        served.texts.shutdown()


@contextlib.contextmanager
def running(served: Served, heard: Callable[[str], None] | None = None) -> Iterator["Address"]:
    """The application in a thread; `heard` gets what a page posts to /told."""
    app = app_of(served)
    if heard is not None:
        app.router.routes.append(Route("/told", _hearing(heard), methods=["POST"]))
    config = uvicorn.Config(
        app, port=0, log_level="error", lifespan="off", ws="none", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    [sock] = server.servers[0].sockets
    try:
        yield Address(sock.getsockname()[1], server, thread)
    finally:
        server.should_exit = True
        thread.join()


def _hearing(heard: Callable[[str], None]):
    async def endpoint(request: Request) -> Response:
        heard((await request.body()).decode())
        return Response()

    return endpoint


@dataclasses.dataclass
class Address:
    port: int
    server: uvicorn.Server
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, path: str, body=None, method: str | None = None, **headers) -> "Told":
        """A request as bytes, text or JSON, and all that comes back."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if raw is not None:
            names.setdefault("content-type", "application/json")
        with contextlib.closing(self.connect()) as connection:
            connection.request(method or ("GET" if raw is None else "POST"), path, raw, names)
            answer = connection.getresponse()
            return Told(answer.status, answer.read(), dict(answer.getheaders()))


@dataclasses.dataclass
class Told:
    status: int
    raw: bytes
    headers: dict[str, str]

    @property
    def json(self):
        return json.loads(self.raw)

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream, whose lines are all data, pings or empty."""
        lines = [one for one in self.raw.decode().split("\n") if one and not one.startswith(":")]
        assert all(line.startswith("data: ") for line in lines)
        return [line.removeprefix("data: ") for line in lines]

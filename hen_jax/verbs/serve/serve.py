"""`hen serve`: a model and its experts behind the OpenAI API, until it is told to stop."""

import dataclasses
import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax

from hen_jax.core.errors import InputError
from hen_jax.io.packages import cache_folder
from hen_jax.serving.served import Served
from hen_jax.verbs.serve.model import ServeRequest, open_served

KEY = "HEN_SERVE_KEY"
"""The environment's variable with the key that clients must bring."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(request: ServeRequest) -> None:
    """Serves until SIGTERM or Ctrl-C, then lets replies under way end.

    Raises:
      InputError: a folder that is no model or adapter, a setting out of range, or an address that
        cannot be used.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    local = request.host in LOOPBACK
    key = os.environ.get(KEY) or None
    settings = dataclasses.replace(request.settings, loading=local or key is not None)
    with _bound(request.host, request.port) as listening:
        served = open_served(dataclasses.replace(request, settings=settings), key, log=_log)
        try:
            listening.listen()  # whoever reads the line can connect
            _say(served, request.host, listening.getsockname()[1], local)
            _run(served, listening, local)
        finally:
            served.worker.stop()
    print("stopped; all replies under way were ended")


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen on {host} port {port} ({error}); give another --port, or --port 0"
            ) from None
        yield listening


def _run(served: Served, listening: socket.socket, local: bool) -> None:
    import uvicorn

    from hen_jax.serving.app import app_of

    config = uvicorn.Config(
        app_of(served, (*LOOPBACK, "[::1]") if local else ("*",)),
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=int(served.settings.drain) + 3,  # streams end first
    )
    with _surviving():
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _surviving() -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C end nothing: uvicorn stops by them, and then sends the process the
    same once more, though a stop that was asked for is no failure."""
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(served: Served, host: str, port: int, local: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    experts = ", ".join(served.experts.named) or "none"
    print(f"{served.name} at http://{shown}:{port} (page) and /v1; experts: {experts}", flush=True)
    if not local and served.key is None:
        print(f"anybody who reaches {host} can ask; set {KEY} to require a key", flush=True)


def _log(line: Mapping[str, Any]) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)

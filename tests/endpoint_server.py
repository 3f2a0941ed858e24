"""A chat completions server in a thread, which answers as a script says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Told(NamedTuple):
    """One answer: a body as it is sent, or an object as JSON; `cut`: bytes that are never sent."""

    body: Any
    state: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    cut: int = 0


def said(text: Any, end: str = "stop", tokens: int = 3) -> Told:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end}
    return Told({"id": "1", "choices": [choice], "usage": {"completion_tokens": tokens}})


class Serving(NamedTuple):
    url: str
    requests: list[dict[str, Any]]  # bodies, with the header under "authorization"


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Told]) -> Iterator[Serving]:
    """`answer(request, number)` decides, the requests numbered from 0 as they come."""
    requests: list[dict[str, Any]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            request["authorization"] = self.headers["authorization"]
            request["path"] = self.path
            with lock:
                number = len(requests)
                requests.append(request)
            told = answer(request, number)
            time.sleep(told.delay)
            body = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
            self.send_response(told.state)
            for name, value in (("content-type", "application/json"), *told.headers):
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - told.cut])
            self.close_connection = bool(told.cut)

        def log_message(self, *_):
            """Nothing: the test looks at `requests`."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            """A client that hung up is part of a test."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield Serving(f"http://127.0.0.1:{server.server_port}/v1", requests)
        finally:
            server.shutdown()
            thread.join()

"""The rating page's server: the standard library's, on this machine unless told otherwise.

A rater's link is `/r/TOKEN`, the host's `/h/TOKEN`. Nothing is loaded from elsewhere, and a log
line never holds what was said.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.measures.people.session import cast, page_of, rater_progress, undone, vote_row, without
from hen_jax.measures.people.store import VoteStore

LARGEST_BODY = 64 * 1024
"""Bytes of a request's body."""

_PAGES: Mapping[str, str] = {
    "rate.html": "text/html; charset=utf-8",
    "host.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "rate.js": "text/javascript; charset=utf-8",
    "host.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Response(NamedTuple):
    """What is sent back."""

    status: HTTPStatus
    body: bytes
    kind: str = "application/json; charset=utf-8"
    filename: str = ""  # offered as a download


def respond(store: VoteStore, method: str, path: str, body: bytes) -> Response:
    """The answer to a request; never raises for what a browser may send."""
    try:
        return _routed(store, method, path.partition("?")[0].strip("/").split("/"), body)
    except InputError as error:
        return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)


def _routed(store: VoteStore, method: str, parts: list[str], body: bytes) -> Response:
    match method, parts:
        case "GET", ["static", name] if name in _PAGES:
            return _page(name)
        case "GET", ["h", token] if token == store.host:
            return _page("host.html")
        case "GET", ["h", token, "progress"] if token == store.host:
            return _json(_overview(store))
        case "GET", ["r", token] if token in store.tokens:
            return _page("rate.html")
        case _, ["r", token, verb] if token in store.tokens:
            return _rater(store, store.tokens[token], method, verb, body)
    return _json({"error": "no such page; use the link you were given"}, HTTPStatus.NOT_FOUND)


def _rater(store: VoteStore, rater: str, method: str, verb: str, body: bytes) -> Response:
    match method, verb:
        case "GET", "state":
            pass
        case "GET", "export":
            rows = [vote_row(x, store.plan.kind) for x in store.votes if x.rater == rater]
            return _json(rows)._replace(filename="my-ratings.json")
        case "POST", "consent":
            store.consent(rater, given=True)
        case "POST", "vote":
            _require_consent(store, rater)
            said, now = _object(body), datetime.now(UTC).isoformat(timespec="seconds")
            store.change(lambda votes: cast(store.plan, rater, votes, said, now))
        case "POST", "undo":
            store.change(lambda votes: undone(rater, votes))
        case "POST", "delete":
            store.change(lambda votes: without(rater, votes))
            store.consent(rater, given=False)
        case _:
            return _json({"error": f"no such request: {method} {verb}"}, HTTPStatus.NOT_FOUND)
    return _json(page_of(store.plan, rater, store.votes, consented=store.consented(rater)))


def _overview(store: VoteStore) -> dict[str, Any]:
    found = rater_progress(store.plan, store.votes)
    links = {rater: f"/r/{token}" for token, rater in store.tokens.items()}
    raters = [one | {"link": links[one["name"]]} for one in found["raters"]]
    return found | {"raters": raters, "language": store.plan.language}


def _require_consent(store: VoteStore, rater: str) -> None:
    if not store.consented(rater):
        raise InputError("consent comes first")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError("the request is no JSON object")
    return found


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(status, json.dumps(value, ensure_ascii=False).encode())


def _page(name: str) -> Response:
    folder = Path(str(resources.files("hen_jax.measures.people"))) / "page"
    return Response(HTTPStatus.OK, (folder / name).read_bytes(), _PAGES[name])


def make_server(
    store: VoteStore, host: str, port: int, log: Callable[[str], None] = lambda line: None
) -> ThreadingHTTPServer:
    """The server, bound and not yet serving; port 0 takes one that is free.

    Raises:
      InputError: the address cannot be taken.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(b"")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            digits = length.isascii() and length.isdecimal() and len(length) < 10
            if not digits or int(length) > LARGEST_BODY:
                self.close_connection = True
                self._send(_json({"error": "body too large"}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
                return
            self._reply(self.rfile.read(int(length)))

        def _reply(self, body: bytes) -> None:
            self._send(respond(store, self.command, self.path, body))

        def _send(self, found: Response) -> None:
            self.send_response(found.status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            if found.filename:
                self.send_header("Content-Disposition", f'attachment; filename="{found.filename}"')
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its name there)
            log(f"{self.command} {args[1] if len(args) > 1 else ''}")

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError, TypeError, ValueError) as error:  # the last two: no host name
        raise InputError(f"--host {host} --port {port}: cannot be taken ({error})") from None

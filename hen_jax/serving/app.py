"""The HTTP application: routes of the OpenAI API, of vLLM's adapter loading, and of the page."""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import anyio
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from hen_jax.serving import adapters_api, page
from hen_jax.serving.asks import ServedRequest, read_chat, read_completion
from hen_jax.serving.bodies import answer_json, read_body
from hen_jax.serving.chat_answers import chat_events, whole_chat
from hen_jax.serving.completion_answers import completion_events, echoes, whole_completion
from hen_jax.serving.draining import ended_in_time
from hen_jax.serving.noting import count_refusal, whole_replies
from hen_jax.serving.refusals import RefusedError, refusal_body, unknown_model
from hen_jax.serving.replying import PlannedRequest, plan_request
from hen_jax.serving.served import Served

Handler = Callable[[Served, Request], Awaitable[ASGIApp]]

GONE = 499
"""The state, told to nobody, of a request whose client went away."""


def app_of(served: Served, hosts: Sequence[str] = ("*",)) -> Starlette:
    """The application of a served model, for requests to one of these hosts."""

    def route(path: str, handler: Handler, method: str = "GET") -> Route:
        async def endpoint(request: Request) -> ASGIApp:
            _require_key(served, request)
            return await handler(served, request)

        return Route(path, endpoint, methods=[method])

    async def health(request: Request) -> Response:
        if served.worker.failed:
            return JSONResponse({"status": "the engine ended by a defect"}, 503)
        return JSONResponse({"status": "ok", "models": len(served.models)})

    return Starlette(
        routes=[
            Route("/", page.index),
            Route("/health", health),
            Mount("/page", StaticFiles(directory=page.FOLDER)),
            route("/metrics", _metrics),
            route("/v1/models", _models),
            route("/v1/models/{name:path}", _model),
            route("/v1/chat/completions", _chat, "POST"),
            route("/v1/completions", _completion, "POST"),
            route("/v1/load_lora_adapter", adapters_api.load, "POST"),
            route("/v1/unload_lora_adapter", adapters_api.unload, "POST"),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={RefusedError: _refused, HTTPException: _no_such, 500: _defect},
    )


async def _metrics(served: Served, request: Request) -> Response:
    return PlainTextResponse(served.meters.text(), media_type="text/plain; version=0.0.4")


async def _models(served: Served, request: Request) -> Response:
    listed = [_described(served, name) for name in served.models]
    return JSONResponse({"object": "list", "data": listed})


async def _model(served: Served, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in served.models:
        raise unknown_model(name, served.models)
    return JSONResponse(_described(served, name))


def _described(served: Served, name: str) -> dict[str, Any]:
    told = {"id": name, "object": "model", "created": served.created, "owned_by": "hen_jax"}
    told["max_model_len"] = served.slots.places
    return told if name == served.name else told | {"parent": served.name}


async def _chat(served: Served, request: Request) -> ASGIApp:
    async def answer(planned: PlannedRequest) -> Response:
        if planned.ask.stream:
            return _stream(served, planned, chat_events(served, planned))
        rows = await whole_replies(served, planned)
        return answer_json(whole_chat(served, planned, rows), _headers(planned))

    return await _answered(served, request, read_chat, "chatcmpl", answer)


async def _completion(served: Served, request: Request) -> ASGIApp:
    async def answer(planned: PlannedRequest) -> Response:
        echoed = await echoes(served, planned)
        if planned.ask.stream:
            return _stream(served, planned, completion_events(served, planned, echoed))
        rows = await whole_replies(served, planned)
        return answer_json(whole_completion(served, planned, rows, echoed), _headers(planned))

    return await _answered(served, request, read_completion, "cmpl", answer)


async def _answered(
    served: Served,
    request: Request,
    read: Callable[[dict[str, Any]], ServedRequest],
    kind: str,
    answer: Callable[[PlannedRequest], Awaitable[Response]],
) -> ASGIApp:
    model = ""
    try:
        body = await read_body(request, served.settings.body)
        ask = read(body)
        model = ask.model
        _require_guardable(served, ask)
        planned = await plan_request(served, ask, kind)
        leave = served.admission.enter(len(planned.prompts) * ask.n)
    except RefusedError as error:
        count_refusal(served, model, error.status)
        raise
    try:
        response = await _while_connected(request, answer(planned))
    except BaseException:
        leave()
        raise
    if ask.stream:
        return _then(response, leave)
    leave()
    return response


def _require_guardable(served: Served, ask: ServedRequest) -> None:
    """With a guard nothing of a reply is told but what the guard has seen as a whole."""
    if served.guard is not None and not ask.messages:
        raise RefusedError("with a guard there are chat completions only", 403, code="guarded")
    if served.guard is not None and ask.top is not None:
        raise RefusedError("logprobs: with a guard there are none", field="logprobs")


def _then(response: Response, leave: Callable[[], None]) -> ASGIApp:
    """The response, and a call when it is sent, or cannot be."""

    async def send_all(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await response(scope, receive, send)
        finally:
            leave()

    return send_all


def _stream(served: Served, planned: PlannedRequest, events: AsyncGenerator[str, None]) -> Response:
    """Without a grace period sse-starlette would cut streams as soon as the server is to stop; with
    a second more they can say that they were cut."""
    told, drain = anyio.Event(), served.settings.drain
    return EventSourceResponse(
        ended_in_time(events, told, drain),
        headers=_headers(planned),
        sep="\n",
        shutdown_event=told,
        shutdown_grace_period=drain + 1,
    )


def _headers(planned: PlannedRequest) -> dict[str, str]:
    """Who answers, where a router chose."""
    chosen = ",".join(f"{name}={weight:g}" for name, weight in planned.experts.items())
    return {"x-request-id": planned.id} | ({"x-hen-experts": chosen} if chosen else {})


async def _while_connected(request: Request, work: Awaitable[Response]) -> Response:
    """What the work gives; it is cancelled where the client goes away meanwhile."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Response(status_code=GONE)
    finally:
        gone.cancel()
        task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _require_key(served: Served, request: Request) -> None:
    if served.key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), served.key.encode()):
        raise RefusedError("the API key is missing or wrong", 401, code="invalid_api_key")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse(refusal_body(error), error.status, error.headers)


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = RefusedError(
        f"{request.method} {request.url.path}: {error.detail}", error.status_code
    )
    return JSONResponse(refusal_body(refused), error.status_code, error.headers)


async def _defect(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=GONE)
    refused = RefusedError("a defect of the server, which its log tells", 500, code="defect")
    return JSONResponse(refusal_body(refused), 500, {"x-should-retry": "false"})

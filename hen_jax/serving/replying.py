"""From what a client asks to requests of the engine, and their replies part by part."""

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.sampling.engine import require_fit
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.requests import Event, Request
from hen_jax.sampling.scoring import TextScores, score_text
from hen_jax.sampling.speaker import requests_of
from hen_jax.sampling.streamed import StreamedPart, next_part
from hen_jax.serving.asks import ServedRequest
from hen_jax.serving.refusals import RefusedError, too_late, unknown_model
from hen_jax.serving.served import AUTO, Served
from hen_jax.text.chat import render_prompt
from hen_jax.text.streaming import TextStream


class PlannedRequest(NamedTuple):
    """An ask with all that answering it needs."""

    id: str
    created: int  # seconds since 1970
    ask: ServedRequest
    model: str  # what answers: an expert's name, the base's, or "auto" for a mixture
    experts: Mapping[str, float]
    prompts: list[list[int]]
    requests: list[Request]  # `ask.n` of each prompt, one after another; none: nothing is written


async def plan_request(served: Served, ask: ServedRequest, kind: str) -> PlannedRequest:
    """Encodes what is asked and settles who answers.

    Raises:
      RefusedError: no such model, or a prompt that does not fit.
    """
    loop = asyncio.get_running_loop()
    try:
        model, experts = await loop.run_in_executor(served.texts, _experts, served, ask)
        prompts = await loop.run_in_executor(served.texts, _encoded, served, ask)
        requests = _requests(served, ask, prompts)
    except RefusedError:
        raise
    except InputError as error:
        field = "messages" if ask.messages else "prompt"
        raise RefusedError(str(error), field=field) from None
    name, now = f"{kind}-{secrets.token_hex(12)}", int(time.time())
    return PlannedRequest(name, now, ask, model, experts, prompts, requests)


def _experts(served: Served, ask: ServedRequest) -> tuple[str, Mapping[str, float]]:
    """Who answers, and its weights."""
    if ask.model == served.name:
        return ask.model, {}
    if ask.model in served.experts.named:
        return ask.model, {ask.model: 1.0}
    if ask.model != AUTO or served.route is None:
        raise unknown_model(ask.model, served.models)
    if not ask.messages:
        raise RefusedError("a router chooses by a conversation; name a model", field="model")
    found = served.route(ask.messages) or {}
    here = served.experts.named
    # Rounded, so that what was read for nearly the same mixture is used again.
    weights = {name: round(w, 3) for name, w in found.items() if name in here and round(w, 3) > 0}
    if not weights:
        return served.name, {}
    return (next(iter(weights)) if len(weights) == 1 else AUTO), weights


def _encoded(served: Served, ask: ServedRequest) -> list[list[int]]:
    """The ids of each prompt; control tokens count as such in the plain text of a completion."""
    if ask.messages:
        return [render_prompt(ask.messages, served.tokenizer).tolist()]
    backend = served.tokenizer.tokenizer.backend_tokenizer
    return [backend.encode(one).ids if isinstance(one, str) else list(one) for one in ask.prompts]


def _requests(served: Served, ask: ServedRequest, prompts: Sequence[list[int]]) -> list[Request]:
    longest, places = max(map(len, prompts)), served.slots.places
    most = ask.max_new_tokens
    if longest >= places:
        raise RefusedError(
            f"a prompt of {longest} tokens leaves no room for a reply: a conversation has "
            f"{places} places here; shorten it",
            field="messages" if ask.messages else "prompt",
            code="context_length_exceeded",
        )
    if most is None:
        most = min(served.settings.new_tokens, places - longest)
    rows = [row for row in prompts for _ in range(ask.n)]
    ends = () if ask.ignore_end else served.ends
    made = Generating(max(most, 1), ends, ask.sampling, ask.stop)
    seed = secrets.randbits(32) if ask.seed is None else ask.seed
    tops = bool(ask.top)
    requests = [dataclasses.replace(one, tops=tops) for one in requests_of(rows, made, seed)]
    for request in requests:
        require_fit(request, served.slots, served.vocabulary)
    return requests if most else []


async def streamed_parts(
    served: Served, planned: PlannedRequest
) -> AsyncGenerator[tuple[int, StreamedPart], None]:
    """The parts of all rows as they come, each with its row's number; closed early, or when time is
    up, what is left is cancelled.

    Raises:
      RefusedError: time is up, or the engine ended.
    """
    requests, began = planned.requests, time.monotonic()
    arrived: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue()
    tickets = [
        served.worker.submit(request, planned.experts, _teller(arrived, row))
        for row, request in enumerate(requests)
    ]
    streams, left = [TextStream()] * len(requests), len(requests)
    try:
        while left:
            row, event = await _next(arrived, began + served.settings.timeout, served)
            streams[row], part = next_part(streams[row], event, requests[row], served.decode)
            left -= part.completion is not None
            yield row, part
    finally:
        for ticket in tickets:
            served.worker.cancel(ticket)


def _teller(arrived: asyncio.Queue, row: int) -> Callable[[Event | Exception], None]:
    loop = asyncio.get_running_loop()

    def tell(event: Event | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody listens any more
            loop.call_soon_threadsafe(arrived.put_nowait, (row, event))

    return tell


async def _next(arrived: asyncio.Queue, deadline: float, served: Served) -> tuple[int, Event]:
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            row, event = await arrived.get()
    except TimeoutError:
        raise too_late(served.settings.timeout) from None
    if isinstance(event, RefusedError):
        raise event
    if isinstance(event, Exception):
        raise RefusedError(str(event))
    return row, event


async def prompt_scores(served: Served, planned: PlannedRequest) -> list[TextScores]:
    """How probable each prompt is, token by token, by whoever is asked."""
    found, top, columns = [], planned.ask.top or 0, served.slots.columns
    for row in planned.prompts:
        request = Request(tuple(row), 1)

        def score(engine, request: Request = request) -> TextScores:
            mixed = served.experts.prepared(request, planned.experts)
            return score_text(engine.weights, request.prompt, mixed.adapter, columns, top)

        found.append(await asyncio.wrap_future(served.worker.call(score)))
    return found

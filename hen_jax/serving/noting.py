"""What a server keeps of a request: counts for `/metrics`, and a line of its log."""

import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from hen_jax.measures.safety.guard import Guard
from hen_jax.sampling.requests import Completion
from hen_jax.sampling.streamed import StreamedPart
from hen_jax.serving.refusals import RefusedError
from hen_jax.serving.replying import PlannedRequest, streamed_parts
from hen_jax.serving.served import Served
from hen_jax.text.conversation import message_row


async def noted_parts(
    served: Served, planned: PlannedRequest
) -> AsyncGenerator[tuple[int, StreamedPart], None]:
    """`replying.streamed_parts`, guarded; each request is counted, and logged at its end."""
    began, first = time.monotonic(), None
    reasons: set[str] = set()
    done: list[Completion] = []
    texts, status = [""] * len(planned.requests), "closed"
    try:
        async with contextlib.aclosing(streamed_parts(served, planned)) as coming:
            async for row, part in coming:
                if first is None and len(part.tokens):
                    first = time.monotonic() - began
                    served.meters.first_token.observe(first)
                texts[row] += part.text
                if served.guard is not None:
                    part = _guarded(served.guard, planned, part, texts[row], reasons)
                done += [] if part.completion is None else [part.completion]
                yield row, part
        status = "200"
    except RefusedError as error:
        status = str(error.status)
        raise
    finally:
        seconds = time.monotonic() - began
        _count(served, planned, done, status, seconds)
        line = _line(served, planned, done, status, seconds, first, texts)
        served.log(line if served.guard is None else line | {"guard": sorted(reasons)})


def _guarded(
    guard: Guard, planned: PlannedRequest, part: StreamedPart, text: str, reasons: set[str]
) -> StreamedPart:
    """The part without its text, or with the last one what the guard makes of the reply."""
    if part.completion is None:
        return part._replace(text="")
    verdict = guard(planned.ask.messages, text)
    reasons.update(verdict.reasons)
    return part._replace(text=verdict.text)


class ReplyRow(NamedTuple):
    """A reply as a whole."""

    text: str
    parts: list[StreamedPart]
    completion: Completion | None


async def whole_replies(served: Served, planned: PlannedRequest) -> list[ReplyRow]:
    """All replies, when the last is written. Raises as `parts`."""
    rows = [ReplyRow("", [], None) for _ in planned.requests]
    async with contextlib.aclosing(noted_parts(served, planned)) as coming:
        async for row, part in coming:
            before = rows[row]
            rows[row] = ReplyRow(before.text + part.text, [*before.parts, part], part.completion)
    return rows


def count_refusal(served: Served, model: str, status: int) -> None:
    """Counts a request that was not begun."""
    named = model if model in served.models else "unknown"  # a client must not make up labels
    served.meters.requests.labels(named, str(status)).inc()


def _count(
    served: Served, planned: PlannedRequest, done: list[Completion], status: str, seconds: float
) -> None:
    meters = served.meters
    meters.requests.labels(planned.model, status).inc()
    meters.seconds.observe(seconds)
    meters.tokens.labels("read").inc(sum(one.prompt_tokens for one in done))
    meters.tokens.labels("cached").inc(sum(one.cached_tokens for one in done))
    meters.tokens.labels("written").inc(sum(len(one.tokens) for one in done))


def _line(
    served: Served,
    planned: PlannedRequest,
    done: list[Completion],
    status: str,
    seconds: float,
    first: float | None,
    texts: list[str],
) -> dict[str, Any]:
    ask = planned.ask
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "id": planned.id,
        "status": status,
        "model": ask.model,
        "answered_by": dict(planned.experts) or served.name,
        "prompt_tokens": sum(one.prompt_tokens for one in done),
        "cached_tokens": sum(one.cached_tokens for one in done),
        "tokens": sum(len(one.tokens) for one in done),
        "finish": [one.finish for one in done],
        "first_token_seconds": None if first is None else round(first, 3),
        "seconds": round(seconds, 3),
    }
    if served.settings.log_text:
        asked = list(map(message_row, ask.messages)) or list(ask.prompts)
        line |= {"asked": asked, "replies": texts}
    return line

"""Chat completions: whole, or as a stream of chunks."""

import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

from hen_jax.sampling.requests import Completion
from hen_jax.sampling.streamed import StreamedPart
from hen_jax.serving.answers import Head, chat_logprobs, tokens_told, usage
from hen_jax.serving.noting import ReplyRow, noted_parts
from hen_jax.serving.refusals import RefusedError, refusal_body
from hen_jax.serving.replying import PlannedRequest
from hen_jax.serving.served import Served

DONE = "[DONE]"
"""The last line of a stream that is whole."""


def whole_chat(served: Served, planned: PlannedRequest, rows: list[ReplyRow]) -> dict[str, Any]:
    """The answer with all its choices."""
    choices = []
    for index, row in enumerate(rows):
        message = {"role": "assistant", "content": row.text, "refusal": None}
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": _logprobs(served, planned, row.parts),
                "finish_reason": _finish(row.completion),
            }
        )
    done = [row.completion for row in rows]
    return head_of(planned).body(choices) | {"usage": usage(done, planned.ask.n)}


async def chat_events(served: Served, planned: PlannedRequest) -> AsyncGenerator[str, None]:
    """The data of each event of a stream: of every choice first its role, then its text, then why
    it ended. What fails meanwhile is told in an event, which is the only sign that clients see."""
    head, ask = head_of(planned), planned.ask
    more = {"usage": None} if ask.include_usage else {}

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None, logprobs=None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return dumped(head.body([choice], chunk=True) | more)

    done: list[Completion | None] = [None] * len(planned.requests)
    for index in range(len(planned.requests)):
        yield chunk(index, {"role": "assistant", "content": ""})
    try:
        async with contextlib.aclosing(noted_parts(served, planned)) as coming:
            async for index, part in coming:
                logprobs = _logprobs(served, planned, [part])
                if part.text or logprobs is not None:
                    yield chunk(index, {"content": part.text}, logprobs=logprobs)
                if part.completion is not None:
                    done[index] = part.completion
                    yield chunk(index, {}, _finish(part.completion))
    except RefusedError as error:
        yield dumped(refusal_body(error))
        return
    if ask.include_usage:
        yield dumped(head.body([], chunk=True) | {"usage": usage(done, ask.n)})
    yield DONE


def head_of(planned: PlannedRequest) -> Head:
    """What all chunks share."""
    kind = "chat.completion" if planned.ask.messages else "text_completion"
    return Head(planned.id, kind, planned.created, planned.model)


def dumped(body: dict[str, Any]) -> str:
    """A line of JSON in ASCII: nothing in it can be taken for the end of a line."""
    return json.dumps(body, separators=(",", ":"), allow_nan=False)


def _finish(completion: Completion | None) -> str | None:
    return None if completion is None else completion.finish


def _logprobs(
    served: Served, planned: PlannedRequest, parts: list[StreamedPart]
) -> dict[str, Any] | None:
    """Those of the tokens that are text: the stop token is not."""
    if planned.ask.top is None:
        return None
    told = [one for part in parts for one in tokens_told(*part[1:4], most=planned.ask.top)]
    ends = planned.requests[0].stop
    return chat_logprobs([one for one in told if one.token not in ends], served.bytes_of)

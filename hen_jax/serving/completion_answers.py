"""Completions of plain texts: whole, or in chunks; with `echo` the prompt comes first."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import numpy as np

from hen_jax.sampling.requests import Completion
from hen_jax.sampling.scoring import TextScores
from hen_jax.sampling.streamed import StreamedPart
from hen_jax.serving.answers import Token, completion_logprobs, tokens_told, usage
from hen_jax.serving.chat_answers import DONE, dumped, head_of
from hen_jax.serving.noting import ReplyRow, noted_parts
from hen_jax.serving.refusals import RefusedError, refusal_body
from hen_jax.serving.replying import PlannedRequest, prompt_scores
from hen_jax.serving.served import Served


class Echo(NamedTuple):
    """A prompt as a part of the answer."""

    text: str
    told: list[Token]


async def echoes(served: Served, planned: PlannedRequest) -> list[Echo]:
    """What each prompt adds to its replies: its text, and its log-probabilities if asked for."""
    ask = planned.ask
    if not ask.echo:
        return [Echo("", [])] * len(planned.prompts)
    texts = [
        said if isinstance(said, str) else served.decode(row)
        for said, row in zip(ask.prompts, planned.prompts, strict=True)
    ]
    if ask.top is None:
        return [Echo(text, []) for text in texts]
    found = await prompt_scores(served, planned)
    return [
        Echo(text, _prompt_tokens(row, one, ask.top))
        for text, row, one in zip(texts, planned.prompts, found, strict=True)
    ]


def _prompt_tokens(row: list[int], found: TextScores, top: int) -> list[Token]:
    """The first token has no probability: nothing stands before it."""
    first = Token(row[0], None, None)
    rest = tokens_told(np.asarray(row[1:], np.int32), found.log_probs, found.top, top)
    return [first, *rest]


def whole_completion(
    served: Served, planned: PlannedRequest, rows: list[ReplyRow], echoed: list[Echo]
) -> dict[str, Any]:
    """The answer with all its choices, `n` of each prompt."""
    choices, n = [], planned.ask.n
    rows = rows or [ReplyRow("", [], None)] * (len(echoed) * n)
    for index, row in enumerate(rows):
        echo = echoed[index // n]
        told = [*echo.told, *_told(planned, row.parts)]
        logprobs, _ = completion_logprobs(told, served.bytes_of, 0)
        finish = "length" if row.completion is None else row.completion.finish
        choices.append(
            {
                "index": index,
                "text": echo.text + row.text,
                "logprobs": None if planned.ask.top is None else logprobs,
                "finish_reason": finish,
            }
        )
    done = [row.completion for row in rows]
    counts = usage(done, n) if planned.requests else _read_only(planned)
    return head_of(planned).body(choices) | {"usage": counts}


async def completion_events(
    served: Served, planned: PlannedRequest, echoed: list[Echo]
) -> AsyncGenerator[str, None]:
    """The data of each event of a stream; what fails meanwhile is told in one."""
    head, ask = head_of(planned), planned.ask
    more = {"usage": None} if ask.include_usage else {}
    rows = len(planned.prompts) * ask.n
    lengths = [0] * rows  # of the texts whose log-probabilities were told

    def chunk(index: int, text: str, told: list[Token], finish: str | None) -> str:
        logprobs, lengths[index] = completion_logprobs(told, served.bytes_of, lengths[index])
        told_of = None if ask.top is None else logprobs
        choice = {"index": index, "text": text, "logprobs": told_of, "finish_reason": finish}
        return dumped(head.body([choice], chunk=True) | more)

    done: list[Completion | None] = [None] * rows
    for index in range(rows):
        if ask.echo:
            finish = None if planned.requests else "length"
            yield chunk(index, *echoed[index // ask.n], finish)
    try:
        async with contextlib.aclosing(noted_parts(served, planned)) as coming:
            async for index, part in coming:
                finish = None if part.completion is None else part.completion.finish
                done[index] = part.completion
                yield chunk(index, part.text, _told(planned, [part]), finish)
    except RefusedError as error:
        yield dumped(refusal_body(error))
        return
    if ask.include_usage:
        counts = usage(done, ask.n) if planned.requests else _read_only(planned)
        yield dumped(head.body([], chunk=True) | {"usage": counts})
    yield DONE


def _told(planned: PlannedRequest, parts: list[StreamedPart]) -> list[Token]:
    """The tokens of a reply, the one that ended it included: lm-eval leaves out the last one."""
    return [one for part in parts for one in tokens_told(*part[1:4], most=planned.ask.top or 0)]


def _read_only(planned: PlannedRequest) -> dict[str, Any]:
    read = sum(map(len, planned.prompts))
    return {"prompt_tokens": read, "completion_tokens": 0, "total_tokens": read}

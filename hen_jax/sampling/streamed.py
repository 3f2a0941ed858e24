"""A reply while it is written: what each step of the engine adds to its text.

`hen chat` and `hen serve` both show replies by it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hen_jax.sampling.engine import Engine
from hen_jax.sampling.requests import Completion, Event, Request, Top
from hen_jax.text.streaming import Decode, TextStream, grow, rest_of


class StreamedPart(NamedTuple):
    """What a step added; texts of all parts together are the reply."""

    text: str  # certain now: whole characters in which no stop string can begin
    tokens: np.ndarray  # [N] int32, the stop token included
    log_probs: np.ndarray  # [N] float32, of the model itself
    top: Top | None
    completion: Completion | None  # with the last part: the whole reply


def next_part(
    stream: TextStream, event: Event, request: Request, decode: Decode
) -> tuple[TextStream, StreamedPart]:
    """The stream after an event of the request, and what it adds."""
    tokens, stop = event.tokens.tolist(), request.stop
    ended = bool(tokens) and tokens[-1] in stop
    strings = request.stop_strings
    stream, text = grow(stream, tokens[: len(tokens) - ended], decode, strings)
    if event.completion is not None:
        text += rest_of(stream, decode)
    return stream, StreamedPart(text, event.tokens, event.log_probs, event.top, event.completion)


def written(engine: Engine, request: Request, decode: Decode) -> Iterator[StreamedPart]:
    """The parts of a reply as the engine writes it, alone; closed early, the reply is cancelled.

    Raises:
      InputError: the request does not fit.
    """
    number, stream, done = engine.submit(request), TextStream(), False
    try:
        while not done:
            for event in engine.step():
                if event.id == number:
                    stream, part = next_part(stream, event, request, decode)
                    done = part.completion is not None
                    yield part
    finally:
        engine.cancel(number)

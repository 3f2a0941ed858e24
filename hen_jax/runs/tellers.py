"""Who answers, told piece by piece as it comes: `runs.chats` for one person who waits."""

import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from hen_jax.io import hf
from hen_jax.io.endpoint_stream import endpoint_pieces
from hen_jax.models.config import DecoderConfig
from hen_jax.runs.chats import (
    Answering,
    back_end,
    endpoint_of,
    generating,
    open_speaker,
    row_of,
)
from hen_jax.runs.decoding import read_weights, require_room
from hen_jax.sampling.engine import Engine
from hen_jax.sampling.slots import Slots
from hen_jax.sampling.speaker import reply_of, requests_of
from hen_jax.sampling.streamed import written
from hen_jax.sampling.weights import Weights
from hen_jax.text.conversation import Message, Reply
from hen_jax.text.detect import open_chat_tokenizer

Telling = Generator[str, None, Reply]
"""Pieces of a reply, and at the end the reply; closed early, it is not written any further."""

Teller = Callable[[Sequence[Message], int], Telling]
"""`teller(conversation, seed)`: a reply to it; what is drawn depends on the seed."""

_PLACES = 1024
"""Tokens of a conversation that there is room for at first; doubled when it grows longer."""


def open_teller(line: str, answering: Answering) -> Teller:
    """Who a back-end's line names. A recording gives its reply as one piece.

    Raises:
      InputError: as `runs.chats.open_speaker`.
    """
    kind, where, _ = back_end(line)
    if kind == "model":
        return _model_teller(Path(where), answering)
    if kind == "endpoint":
        given = endpoint_of(line, answering)
        return lambda messages, seed: endpoint_pieces(
            messages, dataclasses.replace(given, seed=seed)
        )
    speaker = open_speaker(line, answering)

    def tell(messages: Sequence[Message], seed: int) -> Telling:
        [reply] = speaker(seed)([messages])
        yield reply.text
        return reply

    return tell


def _model_teller(folder: Path, answering: Answering) -> Teller:
    """A model that keeps what it has read of a conversation for the next turn."""
    tokenizer, config = open_chat_tokenizer(folder), hf.read_config(folder)
    settings = generating(folder, tokenizer, answering)

    def text_of(ids: Sequence[int]) -> str:
        return str(tokenizer.tokenizer.decode(list(ids)))

    @functools.cache
    def weights() -> Weights:
        """Read when first asked something."""
        given = {"adapter": answering.adapter, "dtype": answering.dtype}
        return read_weights(folder, config, 1, **given)

    @functools.lru_cache(maxsize=1)
    def engine(places: int) -> Engine:
        slots = Slots(1, places, chunk=4, stops=len(settings.stop))
        return Engine(weights(), slots, key="own", decode=text_of)

    def tell(messages: Sequence[Message], seed: int) -> Telling:
        row = row_of(messages, tokenizer)
        require_room(len(row), answering.max_new_tokens, config)
        [request] = requests_of([row], settings, seed % 2**32)
        room, done = places_for(len(row) + answering.max_new_tokens, config), None
        for part in written(engine(room), request, text_of):
            yield part.text
            done = part.completion
        assert done is not None, "the last part holds the whole reply"
        return reply_of(done, settings, text_of)

    return tell


def places_for(needed: int, config: DecoderConfig) -> int:
    """`PLACES`, doubled until it is enough, but no more than the model has."""
    places = _PLACES
    while places < needed:
        places *= 2
    return max(needed, min(places, config.max_length))

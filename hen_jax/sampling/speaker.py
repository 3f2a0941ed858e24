"""A model of ours as a `Chat`, or continuing plain tokens: the one way from text to text."""

from collections.abc import Callable, Sequence

import numpy as np

from hen_jax.sampling.engine import Engine
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.requests import Completion, Request
from hen_jax.sampling.slots import Slots
from hen_jax.sampling.weights import Weights
from hen_jax.text.chat import render_prompt
from hen_jax.text.conversation import Chat, Message, Reply
from hen_jax.text.tokenizer import ChatTokenizer

MOST_ROWS = 32
"""Replies that are written at a time; more wait for a slot."""


def chat_of(
    weights: Weights, tokenizer: ChatTokenizer, settings: Generating, seed: int = 0
) -> Chat:
    """The model as a `Chat`: the conversations of a call are answered together.

    Every call draws from the same `seed`: the same call gives the same replies.
    """

    def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        rows = [render_prompt(messages, tokenizer).tolist() for messages in asked]
        return continued(rows, weights, tokenizer.tokenizer.decode, settings, seed)

    return chat


def continued(
    rows: Sequence[Sequence[int]],
    weights: Weights,
    decode: Callable[..., object],
    settings: Generating,
    seed: int = 0,
) -> list[Reply]:
    """What the model writes after each row of ids, as text without the stop token.

    Args:
      decode: ids -> text, of the tokenizer.
      seed: what is drawn depends on it; below 2**32.

    Raises:
      InputError: an empty row.
    """

    def text_of(tokens: Sequence[int]) -> str:
        return str(decode(list(tokens)))

    requests = requests_of(rows, settings, seed)
    if not requests:
        return []
    found = Engine(weights, slots_for(requests), decode=text_of).run(requests)
    return [reply_of(one, settings, text_of) for one in found]


def requests_of(rows: Sequence[Sequence[int]], settings: Generating, seed: int) -> list[Request]:
    """A request per row, each with a seed made of `seed` and its place."""
    return [
        Request(
            tuple(row),
            settings.max_new_tokens,
            settings.stop,
            settings.stop_strings,
            settings.sampling,
            int(np.random.SeedSequence((seed, place)).generate_state(1)[0]),
        )
        for place, row in enumerate(rows)
    ]


def slots_for(requests: Sequence[Request]) -> Slots:
    """Slots that hold the requests, in sizes that few calls differ in."""
    longest = max(len(one.prompt) + one.max_new_tokens for one in requests)
    rows = min(MOST_ROWS, 2 ** (len(requests) - 1).bit_length())
    stops = max(len(one.stop) for one in requests)
    biases = max(len(one.sampling.logit_bias) for one in requests)
    return Slots(rows, -(-longest // 64) * 64, stops=stops, biases=biases)


def reply_of(
    found: Completion, settings: Generating, text_of: Callable[[Sequence[int]], str]
) -> Reply:
    """A completion as text: without its stop token, or up to its stop string."""
    tokens = found.tokens.tolist()
    ended = bool(tokens) and tokens[-1] in settings.stop
    text = text_of(tokens[: len(tokens) - ended])
    if found.stop_string is not None and found.stop_string in (whole := text_of(tokens)):
        text = whole[: whole.index(found.stop_string)]  # it may stand in the stop token itself
    mean = float(found.log_probs.mean())
    return Reply(text, len(tokens), found.finish == "stop", mean)

"""A model of ours as a `Chat`, or continuing plain tokens: the one way from text to text."""

from collections.abc import Callable, Sequence

import jax
from flax import nnx

from hen_jax.core.types import Tree
from hen_jax.models.decoder import merge
from hen_jax.sampling.generate import Generating, Weights, generate, lay_out, pad_prompts
from hen_jax.text.chat import render_prompt
from hen_jax.text.conversation import Chat, Message, Reply
from hen_jax.text.tokenizer import ChatTokenizer

_run = jax.jit(generate, static_argnames="settings")


def weights_from(structure: nnx.GraphDef) -> Callable[..., Weights]:
    """`weights(*trees)`: a decoder's leaves, in one tree or several, laid out for decoding."""

    def laid_out(*trees: Tree) -> Weights:
        return lay_out(merge(structure, *trees))

    return jax.jit(laid_out)


def chat_of(
    weights: Weights, tokenizer: ChatTokenizer, settings: Generating, seed: int = 0
) -> Chat:
    """The model as a `Chat`: all conversations of a call are one batch.

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
    """
    out = jax.device_get(_run(weights, pad_prompts(rows), jax.random.key(seed), settings))
    replies = []
    for tokens, log_probs, length in zip(out.tokens, out.log_probs, out.lengths, strict=True):
        stopped = int(tokens[length - 1]) in settings.stop
        text = str(decode(tokens[: length - stopped].tolist()))
        replies.append(Reply(text, int(length), stopped, float(log_probs[:length].mean())))
    return replies

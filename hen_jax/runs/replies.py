"""What a model says to a few held-out prompts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hen_jax.core.types import Tree
from hen_jax.data.examples import Document
from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.runs.sources import Source, documents
from hen_jax.sampling.generate import Generating, Weights, generate, lay_out, pad_prompts
from hen_jax.sampling.logits import Sampling
from hen_jax.text.chat import render_prompt, stop_ids
from hen_jax.text.tokenizer import ChatTokenizer

PROMPTS = 6
NEW_TOKENS = 64


class Replies(NamedTuple):
    """A reply to each prompt."""

    texts: list[str]
    lengths: np.ndarray  # [prompts], in tokens, the stop token included
    stopped: np.ndarray  # [prompts] bool; False: cut off at `NEW_TOKENS`


def held_out_prompts(sources: tuple[Source, ...]) -> list[Document]:
    """`PROMPTS` documents of the test part, spread evenly over it; no run trains on them."""
    test = documents(sources).test
    count = min(PROMPTS, len(test))
    return [test[index * len(test) // count] for index in range(count)]


def answering(
    config: DecoderConfig, tokenizer: ChatTokenizer, lora: LoraConfig | None = None
) -> Callable[..., Replies]:
    """`answer(asked, *trees)`: the greedy reply to the last turn of each document.

    `trees` are together the leaves of the decoder: all in one, or the adapter and its base.
    """
    structure = split(abstract(config, lora, Execution(remat="none"))).graphdef
    laid_out = jax.jit(partial(_laid_out, structure))
    run = jax.jit(generate, static_argnames="settings")
    stops = stop_ids(tokenizer)
    made = Generating(NEW_TOKENS, stops, sampling=Sampling(temperature=0.0))

    def answer(asked: Sequence[Document], *trees: Tree) -> Replies:
        rows = [
            render_prompt(document.conversation.messages[:-1], tokenizer).tolist()
            for document in asked
        ]
        weights = laid_out(*jax.tree.map(jnp.asarray, trees))
        out = run(weights, pad_prompts(rows), jax.random.key(0), made)
        tokens, lengths = jax.device_get((out.tokens, out.lengths))
        tokens = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
        texts = tokenizer.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ended = np.array([len(row) > 0 and int(row[-1]) in stops for row in tokens])
        return Replies(list(map(str, texts)), lengths, ended)

    return answer


def _laid_out(structure: nnx.GraphDef, *trees: Tree) -> Weights:
    return lay_out(merge(structure, *trees))

"""What a model says to a few held-out prompts."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from hen_jax.core.types import Tree
from hen_jax.data.examples import Document
from hen_jax.models.config import DecoderConfig, Execution, LoraConfig
from hen_jax.models.decoder import abstract, split
from hen_jax.runs.sources import Source, documents
from hen_jax.sampling.generate import Generating
from hen_jax.sampling.logits import Sampling
from hen_jax.sampling.speaker import chat_of
from hen_jax.sampling.weights import weights_from
from hen_jax.text.chat import stop_ids
from hen_jax.text.conversation import Chat, Message
from hen_jax.text.tokenizer import ChatTokenizer

PROMPTS = 6
NEW_TOKENS = 64


def held_out_prompts(sources: tuple[Source, ...]) -> list[Document]:
    """`PROMPTS` documents of the test part, spread evenly over it; no run trains on them."""
    test = documents(sources).test
    count = min(PROMPTS, len(test))
    return [test[index * len(test) // count] for index in range(count)]


def questions(asked: Sequence[Document]) -> list[tuple[Message, ...]]:
    """Each document without its last turn, which is the reply."""
    return [document.conversation.messages[:-1] for document in asked]


def greedy_chat(
    config: DecoderConfig, tokenizer: ChatTokenizer, lora: LoraConfig | None = None
) -> Callable[..., Chat]:
    """`greedy(*trees)`: the model of those leaves as a `Chat` of at most `NEW_TOKENS` a reply.

    `trees` are together the leaves of the decoder: all in one, or the adapter and its base.
    """
    weights = weights_from(split(abstract(config, lora, Execution(remat="none"))).graphdef)
    made = Generating(NEW_TOKENS, stop_ids(tokenizer), sampling=Sampling(temperature=0.0))

    def greedy(*trees: Tree) -> Chat:
        return chat_of(weights(*jax.tree.map(jnp.asarray, trees)), tokenizer, made)

    return greedy

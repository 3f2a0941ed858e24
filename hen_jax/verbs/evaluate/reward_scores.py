"""The reward model of an evaluation: `FOLDER[:ADAPTER]` as a function of conversations."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from hen_jax.runs.arms import model_and_adapter
from hen_jax.runs.chats import revision
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.scored import open_reward, reward_config, score_documents
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation

_Scores = Callable[[Sequence[Conversation]], np.ndarray]


def named_reward(
    given: str, dtype: Literal["float32", "bfloat16"]
) -> tuple[str, Callable[[], _Scores]]:
    """Its name, and how it is opened: `[n]` scores, NaN of a conversation too long for it.

    Raises:
      InputError: no reward model there.
    """
    folder, adapter = model_and_adapter(given)
    positions = reward_config(folder, adapter).max_length

    def open_scores() -> _Scores:
        reward, words = open_reward(folder, adapter, dtype), known_tokenizer(folder)

        def scores(conversations: Sequence[Conversation]) -> np.ndarray:
            documents = [one.tokens for one in render_all(conversations, words)]
            fitting = [at for at, tokens in enumerate(documents) if len(tokens) <= positions]
            found = np.full(len(documents), np.nan)
            found[fitting] = score_documents(reward, [documents[at] for at in fitting])
            return found

        return scores

    return f"{given} ({revision(f'model:{folder}', adapter)})", open_scores

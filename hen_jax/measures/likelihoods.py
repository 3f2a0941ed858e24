"""Which option a model finds likeliest: classification without a word being drawn.

A prompt and its options are asked together, so that whoever answers can compute the prompt once.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from hen_jax.evaluation.suite import LogProbs, Turns
from hen_jax.measures.choices import Choice, ChoiceItem
from hen_jax.text.conversation import Message

_Likelihood = Callable[[Sequence[tuple[Turns, tuple[str, ...]]]], Sequence[LogProbs]]
"""`likelihood([(conversation, replies), ...])`: of the replies to each conversation, in order."""

By = Literal["sum", "token", "character", "ratio"]
"""What is compared: the sum, its mean over tokens or characters, or the sum less that of the same
option after a prompt that says nothing (a ratio, which asks what the conversation adds)."""

NOTHING: Turns = (Message("user", "..."),)
"""The prompt that says nothing."""


def likeliest(
    items: Sequence[ChoiceItem], likelihood: _Likelihood, by: By = "token"
) -> list[Choice]:
    """The likeliest option of each item; of equal ones the first. All are asked in one call."""
    asked = [(item.messages, item.options) for item in items]
    plain = [(NOTHING, item.options) for item in items] if by == "ratio" else []
    found = list(likelihood([*asked, *plain]))
    base = found[len(items) :] or [None] * len(items)
    return [
        Choice(item, int(np.argmax(option_worth(item, own, by, rest))))
        for item, own, rest in zip(items, found, base, strict=False)
    ]


def option_worth(
    item: ChoiceItem, own: LogProbs, by: By, plain: LogProbs | None = None
) -> np.ndarray:
    """`[K]`: what is compared between the options of an item."""
    if by == "token":
        return own.sums / np.maximum(own.tokens, 1)
    if by == "character":
        return own.sums / np.asarray([len(option) for option in item.options])
    return own.sums if plain is None else own.sums - plain.sums


def interaction(first: LogProbs, second: LogProbs) -> float:
    """Of two prompts and two replies: `log p(r1;p1) + log p(r2;p2) - log p(r1;p2) - log p(r2;p1)`.

    Above 0 the model tells the two conditions apart, whatever it thinks of each reply by itself.
    `first` are both replies at the first prompt, `second` both at the second.
    """
    return float(first.sums[0] + second.sums[1] - second.sums[0] - first.sums[1])

"""Conversations as training examples, and the one shift by one."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.text.chat import ChatFormat, Rendered, message_starts, render, render_all
from hen_jax.text.conversation import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Overlong = Literal["truncate", "drop"]


@dataclasses.dataclass(frozen=True)
class Document:
    """A conversation with the name that errors call it and the group that splits keep whole."""

    id: str
    group: str
    conversation: Conversation


@dataclasses.dataclass(frozen=True)
class Example:
    """A rendered conversation, unshifted: `mask[t]` says whether `tokens[t]` is to be predicted."""

    tokens: np.ndarray  # [n] int32
    mask: np.ndarray  # [n] bool
    id: str
    group: str

    @property
    def length(self) -> int:
        """Positions it takes in a row: one fewer than tokens, as the last predicts nothing."""
        return len(self.tokens) - 1


class Shifted(NamedTuple):
    """Inputs beside what they predict."""

    tokens: np.ndarray  # [n - 1] int32
    targets: np.ndarray  # [n - 1] int32
    mask: np.ndarray  # [n - 1] bool, of the targets


def shift(example: Example) -> Shifted:
    """`targets[t] = tokens[t + 1]`, with the mask of the target; done here and nowhere else.

    Tokens `a b c` with mask `0 0 1` become inputs `a b`, targets `b c`, mask `0 1`.
    """
    return Shifted(example.tokens[:-1], example.tokens[1:], example.mask[1:])


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples, and the ids of the documents that were too long to be taken whole."""

    examples: list[Example]
    truncated: tuple[str, ...]  # lost their oldest turns
    dropped: tuple[str, ...]  # left out

    def summary(self) -> str:
        """One line for a log: nothing is cut or left out silently."""
        return (
            f"{len(self.examples)} examples, {len(self.truncated)} of them without their oldest "
            f"turns, {len(self.dropped)} left out as too long"
        )


def encode(
    documents: Sequence[Document],
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
    *,
    max_length: int,
    overlong: Overlong = "truncate",
) -> Encoded:
    """Renders documents into examples of at most `max_length` positions.

    A document that is longer loses its oldest turns, never its system message nor its last
    exchange ("truncate"); if even these do not fit, or under "drop", it is left out. A reply is
    never cut: half a reply would teach the model to stop mid-sentence.

    Raises:
      InputError: a document without a trained token; names its id.
    """
    rendered = render_all([document.conversation for document in documents], tokenizer, chat_format)
    examples: list[Example] = []
    truncated: list[str] = []
    dropped: list[str] = []
    for document, whole in zip(documents, rendered, strict=True):
        if len(whole.tokens) - 1 <= max_length:
            examples.append(_example(document, whole))
            continue
        fitting = None
        if overlong == "truncate":
            fitting = _without_oldest(document, whole, tokenizer, chat_format, max_length)
        if fitting is None:
            dropped.append(document.id)
        else:
            truncated.append(document.id)
            examples.append(_example(document, fitting))
    return Encoded(examples, tuple(truncated), tuple(dropped))


def _example(document: Document, rendered: Rendered) -> Example:
    if not rendered.mask[1:].any():
        raise InputError(
            f"record {document.id}: no token of it would train; it needs an assistant message"
        )
    return Example(rendered.tokens, rendered.mask, document.id, document.group)


def _without_oldest(
    document: Document,
    whole: Rendered,
    tokenizer: "PreTrainedTokenizerFast",
    chat_format: ChatFormat,
    max_length: int,
) -> Rendered | None:
    messages = document.conversation.messages
    system = tuple(message for message in messages if message.role == "system")
    starts = [
        index
        for index, message in enumerate(messages)
        if index > len(system) and message.role == "user"
    ]
    at = message_starts(whole, document.conversation, tokenizer, chat_format)
    for start in starts:
        if at is None:
            shorter = Conversation((*system, *messages[start:]))
            rendered = render(shorter, tokenizer, chat_format)
        else:
            rendered = _joined(whole, at[len(system)], at[start])
        if len(rendered.tokens) - 1 <= max_length:
            # A user turn at the end without a reply is no exchange to learn from.
            return rendered if rendered.mask.any() else None
    return None


def _joined(whole: Rendered, end: int, start: int) -> Rendered:
    """The ids up to `end`, the first turn's header, and from `start`, a later one's, on."""
    return Rendered(*(np.concatenate([part[:end], part[start:]]) for part in whole))

"""Conversations as training examples, and the one shift by one."""

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.text.chat import Rendered, render, render_all
from hen_jax.text.conversation import Conversation
from hen_jax.text.script import script
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.text.turns import ChatFormat

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
        return encoding_summary(len(self.examples), len(self.truncated), len(self.dropped))


def encoding_summary(examples: int, truncated: int, dropped: int) -> str:
    """What became of documents: `9 examples, 2 of them without ..., 1 left out as too long`."""
    return (
        f"{examples} examples, {truncated} of them without their oldest turns, "
        f"{dropped} left out as too long"
    )


def encode(
    documents: Sequence[Document],
    tokenizer: ChatTokenizer,
    *,
    max_length: int,
    overlong: Overlong = "truncate",
) -> Encoded:
    """Renders documents into examples of at most `max_length` positions.

    A document that is longer loses its oldest turns, never its system message nor its last
    exchange ("truncate"); if even these do not fit, or under "drop", it is left out. A reply is
    never cut: half a reply would teach the model to stop mid-sentence.

    Raises:
      InputError: a document without a trained token, or one that says what the format has no place
        for; names its id.
    """
    cuts = overlong == "truncate"
    _require_place(documents, tokenizer.chat_format)
    rendered = _render_ends(documents, tokenizer, max_length if cuts else None)
    examples: list[Example] = []
    truncated: list[str] = []
    dropped: list[str] = []
    for document, (conversation, ids) in zip(documents, rendered, strict=True):
        fitting: Rendered | None = ids
        if len(ids.tokens) - 1 > max_length:
            fitting = None
            if cuts:
                fitting = _without_oldest(conversation, ids, tokenizer, max_length)
            (dropped if fitting is None else truncated).append(document.id)
        if fitting is not None:
            examples.append(_example(document, fitting))
    return Encoded(examples, tuple(truncated), tuple(dropped))


def _require_place(documents: Sequence[Document], chat_format: ChatFormat) -> None:
    """Names the first document that the format cannot write down."""
    for document in documents:
        messages = document.conversation.messages
        if any(message.thought or message.trains is not None for message in messages):
            try:
                script(messages, chat_format)
            except InputError as error:
                raise InputError(f"record {document.id}: {error}") from None


SAMPLE = 32
"""Documents whose tokens are counted before those of the others are guessed."""


def _render_ends(
    documents: Sequence[Document],
    tokenizer: ChatTokenizer,
    max_length: int | None,
) -> list[tuple[Conversation, Rendered]]:
    """Each conversation rendered, or as much of its end as is longer than `max_length`.

    Tokenising is nearly all of the work, and the beginning of a conversation that will not fit is
    not wanted. How much will do is guessed from a few; where the guess was short, all is rendered.
    """
    whole = [document.conversation for document in documents]
    if max_length is None:
        return list(zip(whole, render_all(whole, tokenizer), strict=True))
    sample = render_all(whole[:SAMPLE], tokenizer)
    tokens = sum(len(ids.tokens) for ids in sample)
    letters = sum(len(m.content) for one in whole[:SAMPLE] for m in one.messages)
    enough = 1.2 * max_length * letters / max(tokens, 1)
    ends = [_end(one, enough) for one in whole[SAMPLE:]]
    rendered = [*sample, *render_all(ends, tokenizer)]
    found = list(zip([*whole[:SAMPLE], *ends], rendered, strict=True))
    short = [
        at
        for at, (conversation, ids) in enumerate(found)
        if conversation is not whole[at] and len(ids.tokens) - 1 <= max_length
    ]
    for at, ids in zip(short, render_all([whole[at] for at in short], tokenizer), strict=True):
        found[at] = (whole[at], ids)
    return found


def _end(conversation: Conversation, letters: float) -> Conversation:
    """The system message and the fewest last exchanges of so many letters; else all of it."""
    messages = conversation.messages
    system = tuple(message for message in messages[:1] if message.role == "system")
    for start in range(len(messages) - 1, len(system), -1):
        letters -= len(messages[start].content)
        if letters <= 0 and messages[start].role == "user":
            return Conversation((*system, *messages[start:]))
    return conversation


def encode_parts(
    documents: Iterable[Document],
    tokenizer: ChatTokenizer,
    *,
    max_length: int,
    overlong: Overlong = "truncate",
) -> Iterator[Encoded]:
    """`encode` of any number of documents, `DOCUMENTS_AT_ONCE` by one, in flat memory."""
    rest = iter(documents)
    while part := list(itertools.islice(rest, DOCUMENTS_AT_ONCE)):
        yield encode(part, tokenizer, max_length=max_length, overlong=overlong)


DOCUMENTS_AT_ONCE = 4096
"""Documents rendered together: enough to keep the tokenizer's threads busy."""


def _example(document: Document, rendered: Rendered) -> Example:
    if not rendered.mask[1:].any():
        raise InputError(
            f"record {document.id}: no token of it would train; it needs an assistant message"
        )
    return Example(rendered.tokens, rendered.mask, document.id, document.group)


def _without_oldest(
    conversation: Conversation,
    whole: Rendered,
    tokenizer: ChatTokenizer,
    max_length: int,
) -> Rendered | None:
    messages = conversation.messages
    system = tuple(message for message in messages if message.role == "system")
    exchanges = [
        index
        for index, message in enumerate(messages)
        if index > len(system) and message.role == "user"
    ]

    def from_exchange(start: int) -> Rendered:
        if whole.starts is None:
            return render(Conversation((*system, *messages[start:])), tokenizer)
        added = len(whole.starts) - len(messages)  # the format's own system message
        return _joined(whole, whole.starts[added + len(system)], whole.starts[added + start])

    def fits(start: int) -> bool:
        return len(from_exchange(start).tokens) - 1 <= max_length

    first = bisect.bisect_left(exchanges, True, key=fits)
    if first == len(exchanges):
        return None
    kept = from_exchange(exchanges[first])
    # A user turn at the end without a reply is no exchange to learn from.
    return kept if kept.mask.any() else None


def _joined(whole: Rendered, end: int, start: int) -> Rendered:
    """The ids up to `end`, the first turn's header, and from `start`, a later one's, on."""
    return Rendered(*(np.concatenate([part[:end], part[start:]]) for part in whole[:2]))

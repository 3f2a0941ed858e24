"""The compared replies to one prompt as one row: the prompt once, the replies behind it.

Tokens of the prompt are computed once for all its replies. Unlike rows that train next tokens,
these hold every token of a document, its last included, for the score is read off that one.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.types import Batch, RowLimits
from hen_jax.data.examples import Shifted
from hen_jax.data.packing import lay_out_row, stack_rows
from hen_jax.data.preferences import Pair
from hen_jax.data.rated import HIDDEN, Reads, replies_only
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.tokenizer import ChatTokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """The replies to one prompt, rendered with it, and who was preferred to whom.

    What scores are read off holds whole documents; what trains a policy (see `data.continuations`)
    holds inputs, and `targets`, `weights` and `marks` beside them.
    """

    id: str
    group: str
    kind: str
    documents: tuple[np.ndarray, ...]  # K of [n] int32: prompt and reply, whole
    prefix: int  # tokens that all begin with; each has at least one of its own
    wins: np.ndarray  # [K, K] float32, as `objectives.preference.Comparisons.wins`
    ties: np.ndarray  # the same of ties, equal both ways
    margin: np.ndarray  # the same of margins, opposite both ways
    judged: tuple["JudgedReply", ...] = ()  # the pairs that it was made from
    targets: tuple[np.ndarray, ...] = ()  # K of [n] int32: the token after each
    weights: tuple[np.ndarray, ...] = ()  # K of [n] float32: what each target counts for
    marks: np.ndarray | None = None  # [K, 2] float32: times called wanted, and unwanted

    @property
    def length(self) -> int:
        """Positions of its row: the prefix once, then each document's own tokens."""
        return self.prefix + sum(len(document) - self.prefix for document in self.documents)


class JudgedReply(NamedTuple):
    """One pair: places of its two replies among the documents, and what the data calls it."""

    chosen: int
    rejected: int
    pair: Pair


class ComparedBatch(NamedTuple):
    """Rows of compared replies; document `k` of a row is its segment `k + 1`."""

    batch: Batch  # [B, T]
    wins: np.ndarray  # [B, K, K] float32
    ties: np.ndarray  # [B, K, K] float32
    margin: np.ndarray  # [B, K, K] float32


class Taken(NamedTuple):
    """Prompts that fit in a row, and the ids of those that do not."""

    compared: list[Compared]
    dropped: tuple[str, ...]
    silent: tuple[str, ...] = ()  # a side of them has nothing that trains


def render_comparisons(
    pairs: Sequence[Pair],
    tokenizer: ChatTokenizer,
    *,
    row_length: int,
    shared: bool = True,
    reads: Reads = "conversation",
) -> Taken:
    """Brings the pairs of each prompt together and renders them.

    A prompt with three replies compared pairwise is one item: its replies are computed once and
    its comparisons weigh as much as another prompt's single pair. What does not fit in a row is
    left out and named; a reply is never cut. Without `shared` each reply has the prompt to itself.
    What reads "replies" sees none of what was said before: the control of any accuracy.

    Raises:
      InputError: two replies of a pair that are the same tokens.
    """
    by_prompt: dict[tuple[Message, ...], list[Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.prompt, []).append(pair)
    prompts = [replies_of(of_prompt) for of_prompt in by_prompt.values()]
    conversations = [
        Conversation(prompt + reply) if reads == "conversation" else alone(reply)
        for prompt, replies in zip(by_prompt, prompts, strict=True)
        for reply in replies
    ]
    rendered = iter(render_all(conversations, tokenizer))
    found = [
        _compared(of_prompt, replies, tuple(next(rendered).tokens for _ in replies), shared)
        for of_prompt, replies in zip(by_prompt.values(), prompts, strict=True)
    ]
    fitting = [one for one in found if one.length <= row_length]
    return Taken(fitting, tuple(one.id for one in found if one.length > row_length))


def alone(reply: tuple[Message, ...]) -> Conversation:
    """A reply behind a prompt that says nothing; of several turns the user's are hidden too."""
    return replies_only(Conversation((Message("user", HIDDEN), *reply)))


def turn_pairs(pair: Pair) -> list[Pair]:
    """A pair of conversations over the same user side as one pair for each turn of the assistant.

    The history of a turn is the chosen branch. Turns in which both say the same are left out.

    Raises:
      InputError: the two branches do not have the same user turns.
    """
    sides = list(zip(pair.chosen, pair.rejected, strict=False))
    if len(pair.chosen) != len(pair.rejected) or any(
        one.role != other.role or (one.role == "user" and one != other) for one, other in sides
    ):
        raise InputError(f"record {pair.id}: the branches differ in what the user says")
    found = []
    for turn, (one, other) in enumerate(sides):
        if one.role == "assistant" and one != other:
            prompt = pair.prompt + pair.chosen[:turn]
            changed = {"id": f"{pair.id}#{turn // 2 + 1}", "prompt": prompt}
            found.append(dataclasses.replace(pair, **changed, chosen=(one,), rejected=(other,)))
    return found


def most_replies(compared: Iterable[Compared]) -> int:
    """K: the most replies to one prompt."""
    return max((len(one.documents) for one in compared), default=2)


def compared_batch(rows: Sequence[Compared | None], row_length: int, replies: int) -> ComparedBatch:
    """One batch of one prompt a row; None gives a row of padding that compares nothing.

    Raises:
      InputError: a prompt with more than `replies` replies.
    """
    known = np.zeros((3, len(rows), replies, replies), np.float32)
    laid = []
    for at, row in enumerate(rows):
        documents = [] if row is None else [unshifted(document) for document in row.documents]
        if len(documents) > replies:
            raise InputError(f"record {row and row.id}: more than {replies} replies to one prompt")
        if row is not None:
            K = len(documents)
            for laid_out, values in zip(known, (row.wins, row.ties, row.margin), strict=True):
                laid_out[at, :K, :K] = values
        laid.append(lay_out_row(documents, row_length, 0 if row is None else row.prefix))
    return ComparedBatch(stack_rows(laid), *known)


def reach_of(compared: Iterable[Compared]) -> RowLimits:
    """How far the documents of any row reach."""
    own, prefix, held = 1, 0, 1
    for one in compared:
        own = max(own, *(len(document) - one.prefix for document in one.documents))
        prefix, held = max(prefix, one.prefix), max(held, len(one.documents))
    return RowLimits(own, prefix, held)


def replies_of(pairs: Sequence[Pair]) -> list[tuple[Message, ...]]:
    """The different replies to a prompt, in the order in which they are met."""
    return list(dict.fromkeys(reply for pair in pairs for reply in (pair.chosen, pair.rejected)))


def _compared(
    pairs: Sequence[Pair],
    replies: Sequence[tuple[Message, ...]],
    documents: tuple[np.ndarray, ...],
    shared: bool,
) -> Compared:
    judged = []
    for pair in pairs:
        first, second = replies.index(pair.chosen), replies.index(pair.rejected)
        if np.array_equal(documents[first], documents[second]):
            raise InputError(f"record {pair.id}: both sides are the same tokens; leave it out")
        judged.append(JudgedReply(first, second, pair))
    name, group, kind = pairs[0].id, pairs[0].group, pairs[0].kind
    prefix = common_start(documents) if shared else 0
    known = known_of(judged, len(replies))
    return Compared(name, group, kind, documents, prefix, *known, judged=tuple(judged))


def known_of(
    judged: Sequence[JudgedReply], replies: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the pairs say of `K` replies, each `[K, K]` float32: wins, ties and margins.

    Two replies that several pairs compare have the mean of these pairs' margins. A pair of shares
    0.6 for the first, 0.3 for neither gives wins `[[0, .6], [.1, 0]]`, ties `[[0, .3], [.3, 0]]`.
    """
    wins, ties, margin, count = np.zeros((4, replies, replies), np.float32)
    for first, second, pair in judged:
        wins[first, second] += pair.share
        wins[second, first] += 1 - pair.share - pair.tie
        for one, other, sign in ((first, second, 1), (second, first, -1)):
            ties[one, other] += pair.tie
            margin[one, other] += sign * pair.margin
            count[one, other] += 1
    return wins, ties, margin / np.maximum(count, 1)


def common_start(documents: Sequence[np.ndarray]) -> int:
    """Tokens that all begin with, leaving each at least one."""
    most = min(map(len, documents)) - 1
    first = documents[0][:most]
    same = np.logical_and.reduce([first == other[:most] for other in documents[1:]])
    return most if same.all() else int(same.argmin())


def unshifted(document: np.ndarray) -> Shifted:
    """All tokens as inputs; nothing is predicted."""
    return Shifted(document, np.zeros_like(document), np.zeros(len(document), bool))

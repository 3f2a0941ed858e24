"""Conversations with ratings in [0, 1]: of the whole, of single replies, and by dimension."""

import dataclasses
from collections.abc import Mapping
from statistics import fmean
from typing import Literal

from hen_jax.data.examples import Document
from hen_jax.data.preferences import Rated
from hen_jax.data.sense7 import RatedConversation, RatedTurn, ground_truth
from hen_jax.empathy.patterns import DIMENSIONS
from hen_jax.empathy.scales import PERCEIVED
from hen_jax.text.conversation import Conversation, Message


@dataclasses.dataclass(frozen=True)
class RatedLevel:
    """How empathetic something was perceived to be, in [0, 1]."""

    overall: float
    dimensions: Mapping[str, float]  # of the seven of SENSE-7, those that were rated

    def outputs(self, labels: tuple[str, ...]) -> list[float]:
        """Targets of a head with such outputs: NaN for a dimension that was not rated."""
        return [
            self.dimensions.get(name, float("nan")) if name in DIMENSIONS else self.overall
            for name in labels
        ]


@dataclasses.dataclass(frozen=True)
class RatedDocument:
    """A conversation and its ratings."""

    document: Document
    level: RatedLevel
    replies: Mapping[int, RatedLevel] = dataclasses.field(
        default_factory=dict
    )  # by place of message


def rated_rows(record: Rated) -> RatedDocument:
    """A conversation with one rating."""
    document = Document(record.id, record.group, record.conversation)
    return RatedDocument(document, RatedLevel(record.rating, {}))


def rated_sense7(record: RatedConversation) -> RatedDocument | None:
    """Turn-first means over the rated replies, overall and of each dimension; None without one.

    Of a dimension: its mean over the replies for which it was rated.
    """
    overall = ground_truth(record)
    if overall is None:
        return None
    rated = {at: turn for at, turn in enumerate(record.turns) if turn.overall is not None}
    means = {
        name: PERCEIVED.to_unit(fmean(found))
        for name in DIMENSIONS
        if (found := [turn.ratings[name] for turn in rated.values() if name in turn.ratings])
    }
    replies = {at: _reply_level(turn) for at, turn in rated.items()}
    return RatedDocument(record.document(), RatedLevel(PERCEIVED.to_unit(overall), means), replies)


def replies_only(conversation: Conversation) -> Conversation:
    """The same conversation with nothing in it but what the assistant said.

    What a model knows of ratings that has never seen the user's side.
    """
    return Conversation(
        tuple(
            one if one.role == "assistant" else Message(one.role, HIDDEN)
            for one in conversation.messages
        )
    )


Reads = Literal["conversation", "replies"]
"""What a model sees: all, or by `replies_only` as a control."""

HIDDEN = "..."
"""What stands for a message of the user or the system in `replies_only`."""


def _reply_level(turn: RatedTurn) -> RatedLevel:
    found = {name: PERCEIVED.to_unit(value) for name, value in turn.ratings.items()}
    return RatedLevel(fmean(found.values()), found)

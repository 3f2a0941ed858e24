"""What people rate, as read from a file, and the rows of training data that their votes make."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hen_jax.data.preferences import Pair
from hen_jax.data.schemas import read_documents, read_pairs
from hen_jax.data.votes import BOTH_BAD, Kind
from hen_jax.empathy.scales import PERCEIVED, Scale
from hen_jax.text.conversation import Conversation, Message, message_row


class RatedItems(NamedTuple):
    """What was rated, by id: pairs, or conversations with their groups."""

    pairs: dict[str, Pair]
    said: dict[str, tuple[str, Conversation]]

    def known(self) -> Mapping[str, Any]:
        """All that may be voted on."""
        return self.pairs or self.said


def read_items(file: Path, schema: str, kind: Kind) -> RatedItems:
    """The items of a file of any schema: pairs for choices, conversations for ratings.

    Raises:
      InputError: no such schema, one without pairs for choices, or a bad record.
    """
    if kind == "choices":
        return RatedItems({pair.id: pair for pair in read_pairs(file, schema)}, {})
    found = read_documents(file, schema)
    return RatedItems({}, {one.id: (one.group, one.conversation) for one in found})


class RatingSummary(NamedTuple):
    """What annotators said of one conversation."""

    rating: float
    spread: float  # standard deviation
    annotators: int


def rated_row(
    name: str, item: tuple[str, Conversation], scale: Scale, of: RatingSummary
) -> dict[str, Any]:
    """A row of the schema `rating`, brought from `scale` to 1 to 5."""
    group, said = item
    return {
        "id": name,
        "group": group,
        "messages": _rows(said.messages),
        "rating": round(PERCEIVED.from_unit(scale.to_unit(of.rating)), 4),
        "annotators": of.annotators,
        "spread": round(of.spread / (scale.high - scale.low), 4),  # in [0, 1]
    }


def pair_row(pair: Pair, shares: np.ndarray, annotators: int) -> dict[str, Any]:
    """A row of the schema `preference` from shares of `votes.OUTCOMES`, the better reply first.

    Whoever found both bad preferred neither, as in a tie.
    """
    first, second, tie, both_bad = (round(float(share), 4) for share in shares)
    sides = [(pair.chosen, first), (pair.rejected, second)]
    if second > first:
        sides.reverse()
    (chosen, share), (rejected, _) = sides
    return {
        "id": pair.id,
        "group": pair.group,
        "prompt": _rows(pair.prompt),
        "chosen": _rows(chosen),
        "rejected": _rows(rejected),
        "share": share,
        "tie": round(min(tie + both_bad, 1 - share), 4),
        "annotators": annotators,
        BOTH_BAD: both_bad,
    }


def _rows(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message_row(message) for message in messages]

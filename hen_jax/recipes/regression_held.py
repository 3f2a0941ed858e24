"""The held-out ratings, with what predictors say of them that understand nothing."""

from collections.abc import Sequence

import numpy as np

from hen_jax.data.rated import RatedDocument
from hen_jax.data.rating_words import length_ratings, word_ratings
from hen_jax.evaluation.regression import HeldRatings
from hen_jax.runs.rated import RatedParts


def held_ratings(parts: RatedParts) -> HeldRatings:
    """The held-out ratings, with what predictors say of them that were fitted on the others.

    They are the mean of all, length, and a bag of words; the last two read replies only.
    """
    truth = _overall(parts.train.rated)
    texts = [[_replies(one) for one in part.rated] for part in parts]
    return HeldRatings(
        truth=_overall(parts.valid.rated),
        groups=[one.group for one in parts.valid.documents],
        controls={
            "constant": np.full(len(parts.valid.rated), truth.mean()),
            "length": length_ratings(texts[0], truth, texts[1]),
            "bag_of_words": word_ratings(texts[0], truth, texts[1]),
        },
    )


def _overall(rated: Sequence[RatedDocument]) -> np.ndarray:
    return np.asarray([one.level.overall for one in rated])


def _replies(rated: RatedDocument) -> str:
    said = rated.document.conversation.messages
    return "\n".join(one.content for one in said if one.role == "assistant")

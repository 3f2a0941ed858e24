"""An identifier as the small model of HEF: emotions of what users say, and words that tell them."""

from collections.abc import Sequence

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.methods.emotion_models import EmotionModel
from hen_jax.methods.identifier import Trained, head_probabilities, word_weights
from hen_jax.text.conversation import Message

EMOTION_HEAD = "emotion"


def said_last(messages: Sequence[Message]) -> tuple[str, str]:
    """What an identifier of emotions reads: all turns before, and the user's last one."""
    spoken = [one for one in messages if one.role != "system"]
    last = max((at for at, one in enumerate(spoken) if one.role == "user"), default=None)
    if last is None:
        return "", ""
    return "\n".join(one.content for one in spoken[:last]), spoken[last].content


def identified_emotions(found: Trained) -> EmotionModel:
    """The identifier's head `emotion` as a small model; cause words are by gradient.

    Raises:
      InputError: it has no such head.
    """
    if EMOTION_HEAD not in found.heads:
        raise InputError(
            f"the identifier has the heads {', '.join(found.heads)}; hef needs {EMOTION_HEAD!r}: "
            "`hen identify train --label emotion`"
        )

    def probs(messages: Sequence[Message]) -> np.ndarray:
        return head_probabilities(found, [said_last(messages)])[EMOTION_HEAD][0]

    def causes(messages: Sequence[Message]) -> list[tuple[str, float]]:
        return word_weights(found, said_last(messages), EMOTION_HEAD)

    return EmotionModel(tuple(found.heads[EMOTION_HEAD]), probs, causes)

"""A personality that is estimated turn by turn, and the reactions to what was said (PECER).

After Cai et al. (PECER): a personality extracted dynamically from the dialogue, and a contextual
reasoner of emotional reactions. The trait space is not public, so both common ones are here; the
estimators, their words and the moving average are ours.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hen_jax.evaluation.reply_rules import words_of
from hen_jax.methods.emotion_models import EmotionModel
from hen_jax.text.conversation import Message

Space = Literal["big5", "mbti"]

TRAITS_OF_SPACE: Mapping[Space, tuple[str, ...]] = {
    "big5": ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"),
    "mbti": ("E-I", "S-N", "T-F", "J-P"),
}
"""The axes of each space; a value is in [-1, 1], of an MBTI axis 1 is its first letter."""

_CUES: Mapping[Space, Mapping[str, Mapping[str, float]]] = {
    "big5": {
        "openness": {"imagine": 1, "idea": 1, "wonder": 1, "art": 1, "new": 0.5, "usual": -1,
                     "always": -0.5},
        "conscientiousness": {"plan": 1, "list": 1, "ready": 1, "finish": 1, "deadline": 0.5,
                              "forgot": -1, "late": -1, "messy": -1},
        "extraversion": {"party": 1, "friends": 1, "everyone": 1, "fun": 0.5, "alone": -1,
                         "quiet": -1, "shy": -1},
        "agreeableness": {"thanks": 1, "please": 1, "help": 0.5, "together": 1, "hate": -1,
                          "stupid": -1, "fault": -0.5},
        "neuroticism": {"worried": 1, "afraid": 1, "can't": 0.5, "panic": 1, "nervous": 1,
                        "calm": -1, "fine": -0.5, "relaxed": -1},
    },
    "mbti": {
        "E-I": {"party": 1, "friends": 1, "everyone": 1, "alone": -1, "quiet": -1, "shy": -1},
        "S-N": {"yesterday": 1, "exactly": 1, "list": 0.5, "imagine": -1, "idea": -1, "why": -0.5},
        "T-F": {"because": 0.5, "logic": 1, "reason": 1, "feel": -1, "love": -1, "heart": -1},
        "J-P": {"plan": 1, "ready": 1, "deadline": 1, "maybe": -1, "whatever": -1, "late": -0.5},
    },
}  # fmt: skip
"""Words that speak for (above 0) or against a trait: few, English, ours; no instrument."""

KEEPS = 0.6
"""How much of the earlier estimate a turn keeps."""


class Personality(NamedTuple):
    """The estimate after each turn of the speaker."""

    space: Space
    states: np.ndarray  # [turns, traits], in [-1, 1]; after turn 0, 1, ...

    @property
    def now(self) -> np.ndarray:
        """`[traits]`: the newest; zeros before anything was said."""
        return self.states[-1] if len(self.states) else np.zeros(len(TRAITS_OF_SPACE[self.space]))


def turn_traits(text: str, space: Space) -> np.ndarray:
    """`[traits]`: what one turn says of each trait: the sum of its cues through tanh."""
    words = words_of(text)
    each = [
        sum(cues.get(word, 0.0) for word in words)
        for cues in (_CUES[space][trait] for trait in TRAITS_OF_SPACE[space])
    ]
    return np.tanh(np.asarray(each, float))


def personality(
    messages: Sequence[Message], space: Space = "big5", keeps: float = KEEPS
) -> Personality:
    """The speaker's traits as the dialogue goes on: an exponential moving average over the user's
    turns, begun at 0 and corrected for that, as Adam's moments are.

    One turn that says `x` is `x`; a second one that says `y` gives `(keeps x + y) / (keeps + 1)`.
    """
    total, states = np.zeros(len(TRAITS_OF_SPACE[space])), []
    said = [one.content for one in messages if one.role == "user"]
    for turn, text in enumerate(said, start=1):
        total = keeps * total + (1 - keeps) * turn_traits(text, space)
        states.append(total / (1 - keeps**turn))
    return Personality(space, np.asarray(states).reshape(len(states), len(TRAITS_OF_SPACE[space])))


def reaction(messages: Sequence[Message], model: EmotionModel) -> np.ndarray:
    """`[labels]`: the emotional reactions that a small model expects of the dialogue, less even."""
    return model.emotion_probs(messages) - 1 / len(model.labels)

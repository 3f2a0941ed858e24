"""PECER as prompts, ours: the personality and the reaction that the dialogue shows, said in words.

The stage `pecer` fuses both into the model as vectors; this says them to any model, and needs no
training. Estimates are those of `methods.personality`, whose cue words are English.
"""

from collections.abc import Sequence

import numpy as np

from hen_jax.empathy.labels import Language
from hen_jax.empathy.traits import TRAITS as TRAIT_WORDS
from hen_jax.methods.emotion_models import EmotionModel
from hen_jax.methods.personality import TRAITS_OF_SPACE, personality, reaction
from hen_jax.methods.play import Messages, Method, Outcome, Steps, ask
from hen_jax.methods.sections import is_chinese_text, with_system

_LEAST = 0.3
"""A trait nearer to 0 than this is not spoken of."""

_WORDS: dict[Language, tuple[str, str, str]] = {
    "en": (
        "From how they speak, the user seems {}.",
        "What was said may leave them {}.",
        "Reply so that it suits them.",
    ),
    "zh": ("从说话的样子看，对方{}。", "说的事可能让对方{}。", "请用适合对方的方式回复。"),
}


def pecer(model: EmotionModel | None = None, language: Language | None = None) -> Method:
    """The method `pecer`; without a small model nothing is said of reactions."""

    def steps(conversation: Messages) -> Steps:
        spoken = language or ("zh" if is_chinese_text(conversation) else "en")
        traits = personality(conversation).now
        expected = None if model is None else likeliest_reaction(conversation, model)
        seems, leaves, wish = _WORDS[spoken]
        said = trait_words(traits, spoken)
        lines = [seems.format(", ".join(said))] if said else []
        lines += [] if expected is None else [leaves.format(expected)]
        trace = {"traits": [round(x, 4) for x in traits.tolist()], "reaction": expected}
        if not lines:
            return Outcome((yield from ask(conversation)), trace)
        text = yield from ask(with_system(conversation, " ".join((*lines, wish))))
        return Outcome(text, trace)

    return steps


def trait_words(traits: Sequence[float] | np.ndarray, language: Language) -> list[str]:
    """The words of the Big Five traits that are far enough from 0."""
    return [
        TRAIT_WORDS[name]["high" if value > 0 else "low"].spoken(language)
        for name, value in zip(TRAITS_OF_SPACE["big5"], traits, strict=True)
        if abs(value) >= _LEAST
    ]


def likeliest_reaction(messages: Messages, model: EmotionModel) -> str | None:
    """The emotion that is likelier than all even ones by the most; None where they are even."""
    found = reaction(messages, model)
    return model.labels[int(found.argmax())] if found.max() > 1e-6 else None

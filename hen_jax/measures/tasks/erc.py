"""Emotion recognition in conversation: label sets of four data sets, and how an item is asked.

MELD (Poria et al., 2019), EmoryNLP (Zahiri and Choi, 2018), IEMOCAP in six classes (Busso et al.,
2008) and DailyDialog (Li et al., 2017). None of their text comes with hen_jax; `measures.tasks.
erc_files` reads the official files. Published figures: weighted F1 of the first three; of
DailyDialog micro F1 without neutral, and macro F1. The prompt is ours, of the usual shape: who said
what, the utterance in question, a closed list.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.measures.choices import ChoiceItem
from hen_jax.text.conversation import Message


class LabelSet(NamedTuple):
    """The classes of a data set."""

    labels: tuple[str, ...]
    neutral: str | None  # left out of DailyDialog's micro F1
    headline: str  # the published measure
    sizes: tuple[int, int, int]  # utterances of train, valid and test (DailyDialog: dialogues)


LABEL_SETS: Mapping[str, LabelSet] = {
    "meld": LabelSet(
        ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear"),
        "neutral",
        "weighted_f1",
        (9989, 1109, 2610),
    ),
    "emorynlp": LabelSet(
        ("Neutral", "Joyful", "Peaceful", "Powerful", "Scared", "Mad", "Sad"),
        "Neutral",
        "weighted_f1",
        (9934, 1344, 1328),
    ),
    "iemocap": LabelSet(
        ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
        "neutral",
        "weighted_f1",
        (0, 0, 0),
    ),
    "dailydialog": LabelSet(
        ("no emotion", "anger", "disgust", "fear", "happiness", "sadness", "surprise"),
        "no emotion",
        "micro_f1",
        (11118, 1000, 1000),
    ),
}
"""By the name of the set; DailyDialog's are in the order of its numbers 0 to 6."""

_WORDS: Sequence[Sequence[str]] = (
    ("neutral", "no emotion", "none", "calm", "other", "no_emotion", "neutral state", "neu"),
    ("joy", "joyful", "happy", "happiness", "happines", "hap", "pleased", "glad"),
    ("anger", "angry", "mad", "furious", "ang"),
    ("sadness", "sad", "sorrow", "unhappy"),
    ("surprise", "surprised", "astonished"),
    ("disgust", "disgusted"),
    ("fear", "scared", "afraid", "fearful", "frightened"),
    ("excited", "excitement", "exc"),
    ("frustrated", "frustration", "fru"),
    ("peaceful", "peace"),
    ("powerful", "power", "proud"),
)
"""Words for one emotion; whichever of them a set has is the label, the others its aliases."""


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One line of a dialogue, with its label."""

    dialogue: str
    speaker: str
    text: str
    emotion: str


def named_set(name: str) -> LabelSet:
    """The label set of that name.

    Raises:
      InputError: no such set; lists those there are.
    """
    if name not in LABEL_SETS:
        raise InputError(f"label set {name!r}; allowed: {', '.join(LABEL_SETS)}")
    return LABEL_SETS[name]


def aliases(name: str) -> dict[str, str]:
    """Other words for the labels of a set: of MELD `joyful` and `happy` are `joy`."""
    labels = {label.lower(): label for label in named_set(name).labels}
    found = {}
    for words in _WORDS:
        label = next((labels[word] for word in words if word in labels), None)
        if label is not None:
            found |= {word: label for word in words if word not in labels}
    return found


def mapped(said: str, name: str) -> str | None:
    """A label of the set for a word of an answer or another file; None where it is no emotion."""
    labels, word = {one.lower(): one for one in named_set(name).labels}, said.strip().lower()
    return labels.get(word) or aliases(name).get(word)


def erc_items(utterances: Sequence[Utterance], name: str, window: int = 8) -> list[ChoiceItem]:
    """A question for each utterance: up to `window` lines before it, and the closed list."""
    labels, found = named_set(name).labels, []
    start: dict[str, int] = {}
    for at, one in enumerate(utterances):
        first = start.setdefault(one.dialogue, at)
        before = utterances[max(first, at - window) : at]
        text = erc_prompt(before, one, labels)
        found.append(
            ChoiceItem(
                id=f"{name}/{one.dialogue}/{at - first}",
                group=one.dialogue,
                aspect="emotion",
                messages=(Message("user", text),),
                options=labels,
                answer=labels.index(one.emotion),
            )
        )
    return found


def erc_prompt(before: Sequence[Utterance], target: Utterance, labels: Sequence[str]) -> str:
    """The question as text."""
    lines = [f"{one.speaker}: {one.text}" for one in (*before, target)]
    return (
        "You read dialogues and name feelings.\n\nThe dialogue so far:\n"
        + "\n".join(lines)
        + f"\n\nWhat does {target.speaker} feel in the last line? One of: {', '.join(labels)}."
        + "\nAnswer with that one word."
    )

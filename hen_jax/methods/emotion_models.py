"""Small empathetic models (SEM): which emotions a conversation may hold, and which words tell it.

The protocol of HEF's plug-ins (Yang et al., 2024, arXiv 2402.11801): any pair of such functions is
one. Here is the one from a lexicon; `methods.identifier` has one that we train.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data.rows import text_lines
from hen_jax.evaluation.reply_rules import words_of
from hen_jax.methods.emotions import folded
from hen_jax.text.conversation import Message

_Messages = Sequence[Message]


def _says_a_word(messages: _Messages) -> bool:
    return any(words for words, _ in user_words(messages))


class EmotionModel(NamedTuple):
    """A small model beside the large one."""

    labels: tuple[str, ...]
    emotion_probs: Callable[[_Messages], np.ndarray]  # [labels], sums to 1
    cause_words: Callable[[_Messages], list[tuple[str, float]]]  # the weightiest first
    knows: Callable[[_Messages], bool] = _says_a_word  # whether anything tells of an emotion


_Lexicon = Mapping[str, frozenset[str]]
"""A word in lower case -> the emotions that it goes with."""

LEXICON_HELP = (
    "give a file with `word<TAB>emotion<TAB>0 or 1` on each line, such as the NRC Emotion Lexicon, "
    "which its authors give out at saifmohammad.com and which may not be passed on"
)

_NRC_LABELS: Mapping[str, tuple[str, ...]] = {
    "anger": ("angry",),
    "anticipation": ("anticipating",),
    "disgust": ("disgusted",),
    "fear": ("afraid",),
    "joy": ("happy", "joyful"),
    "sadness": ("sad",),
    "surprise": ("surprised",),
    "trust": ("trusting",),
    "negative": (),
    "positive": (),
}
"""The categories of the NRC Emotion Lexicon, and what the labels of methods call them."""

_NEGATIONS = frozenset({"not", "no", "never", "without", "hardly", "don't", "isn't", "wasn't",
                       "didn't", "can't", "won't", "不", "没", "别", "无"})  # fmt: skip


def read_lexicon(path: Path) -> dict[str, frozenset[str]]:
    """A lexicon from a file of yours; words with no emotion are left out.

    Raises:
      InputError: it cannot be read, a line is of another form, or no word has an emotion.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {LEXICON_HELP}")
    found: dict[str, set[str]] = {}
    for number, line in text_lines(path):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != 3 or cells[2] not in ("0", "1"):
            raise InputError(f"{path}:{number}: no `word<TAB>emotion<TAB>0 or 1`; {LEXICON_HELP}")
        if cells[2] == "1":
            found.setdefault(cells[0].lower(), set()).add(cells[1])
    if not found:
        raise InputError(f"{path}: no word with an emotion; {LEXICON_HELP}")
    return {word: frozenset(emotions) for word, emotions in found.items()}


def lexicon_in_labels(lexicon: _Lexicon, labels: Sequence[str]) -> _Lexicon:
    """The lexicon with its emotions called as the labels call them.

    Categories of the NRC Emotion Lexicon become adjectives (`sadness` is `sad`); those without a
    label are left out, as `positive` is. Other emotions stay as they are.

    Raises:
      InputError: none of its emotions is a label.
    """
    known = {folded(label): label for label in labels}

    def label_of(emotion: str) -> str | None:
        names = _NRC_LABELS.get(folded(emotion))
        own = (folded(emotion), *(names or ()))
        return next((known[one] for one in own if one in known), emotion if names is None else None)

    emotions = sorted({one for found in lexicon.values() for one in found})
    named = {one: label_of(one) for one in emotions}
    if not set(named.values()) & set(labels):
        raise InputError(
            f"the lexicon has the emotions {', '.join(emotions)}, of which none is among the "
            f"labels {', '.join(labels)}; give --labels that it has"
        )
    called = {
        word: frozenset(label for one in found if (label := named[one]) is not None)
        for word, found in lexicon.items()
    }
    return {word: found for word, found in called.items() if found}


def lexicon_model(
    lexicon: _Lexicon, labels: Sequence[str] | None = None, *, smoothing: float = 0.1
) -> EmotionModel:
    """A small model that counts the words of a lexicon in what the user said; it is never trained.

    A word counts for each of its emotions alike; the user's last turn counts twice as much as the
    one before, and so on. Words within two after a negation do not count. The probability of a
    label is its count plus `smoothing`, over the sum. Labels without a word get no more than that.
    """
    names = tuple(labels or sorted({one for emotions in lexicon.values() for one in emotions}))

    def probs(messages: _Messages) -> np.ndarray:
        counts = np.full(len(names), smoothing)
        for word, weight in _felt(messages, lexicon):
            own = [one for one in names if one in lexicon[word]]
            for one in own:
                counts[names.index(one)] += weight / len(own)
        return counts / counts.sum()

    def causes(messages: _Messages) -> list[tuple[str, float]]:
        total: dict[str, float] = {}
        for word, weight in _felt(messages, lexicon):
            total[word] = total.get(word, 0.0) + weight
        return sorted(total.items(), key=lambda one: (-one[1], one[0]))

    def knows(messages: _Messages) -> bool:
        return any(set(names) & lexicon[word] for word, _ in _felt(messages, lexicon))

    return EmotionModel(names, probs, causes, knows)


def top_k_recall(
    model: EmotionModel, asked: Sequence[_Messages], gold: Sequence[str], k: int
) -> float:
    """The share of conversations whose emotion is among the model's `k` likeliest."""
    hits = [
        folded(label) in map(folded, likeliest_labels(model, one, k))
        for one, label in zip(asked, gold, strict=True)
    ]
    return float(np.mean(hits))


def likeliest_labels(model: EmotionModel, messages: _Messages, k: int) -> list[str]:
    """The `k` likeliest labels, the likeliest first; those alike in the order of the labels."""
    order = np.argsort(-model.emotion_probs(messages), kind="stable")
    return [model.labels[place] for place in order[:k]]


def user_words(messages: _Messages) -> list[tuple[list[str], float]]:
    """The words of each turn of the user, the last first, with weights 1, 1/2, 1/4, ..."""
    said = [one.content for one in messages if one.role == "user"]
    return [(words_of(text), 0.5**ago) for ago, text in enumerate(reversed(said))]


def _felt(messages: _Messages, lexicon: _Lexicon) -> Iterable[tuple[str, float]]:
    for words, weight in user_words(messages):
        for at, word in enumerate(words):
            if word in lexicon and not _NEGATIONS & set(words[max(0, at - 2) : at]):
                yield word, weight

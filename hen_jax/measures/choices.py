"""Items with one right answer among several: how they are asked, and how an answer is read.

An item is asked in two ways. A chat is shown the options by letter, in an order of its own for each
item, and its letter is read strictly: what names no option, or two, is no answer, and is counted. A
model with log-probabilities is asked how likely each option is after the conversation
(`measures.likelihoods`).
"""

import dataclasses
import random
import re
import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.empathy.labels import Language
from hen_jax.text.conversation import Message


@dataclasses.dataclass(frozen=True)
class ChoiceItem:
    """A question with options of which one is right.

    Raises:
      InputError: fewer than two options, two that are the same, or an answer that is none.
    """

    id: str
    group: str  # what resampling keeps together
    aspect: str  # what it measures
    messages: tuple[Message, ...]  # ends with the user's; the options are not in it
    options: tuple[str, ...]
    answer: int  # place of the right option, from 0
    language: Language = "en"

    def __post_init__(self):
        if len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise InputError(f"item {self.id}: options {self.options!r}; give two or more, unlike")
        if not 0 <= self.answer < len(self.options):
            raise InputError(f"item {self.id}: answer {self.answer} of {len(self.options)} options")


class Choice(NamedTuple):
    """What was answered."""

    item: ChoiceItem
    chosen: int | None  # place among the item's options; None: no answer could be read
    shown: tuple[int, ...] = ()  # the order in which a chat saw the options

    @property
    def right(self) -> bool:
        """Whether it is the item's answer; no answer is not."""
        return self.chosen == self.item.answer


_ASKED: Mapping[Language, str] = {
    "en": "Which is right? Answer with one letter ({letters}) and nothing else.",
    "zh": "哪一个对？只回答一个字母（{letters}），不要写别的。",
}
"""Ours; stands under the options."""

_ALONE = r"(?<![A-Za-z])([A-Z])(?=\s*(?:$|[^\w\s'’]|\n))"
_LEAD = r"\W*(?:the\s+)?(?:answer|option|choice|答案|选项|选)?\s*(?:is|是)?\W*"
_LETTER = re.compile(_LEAD + _ALONE, re.IGNORECASE)


def shown_order(item: ChoiceItem, seed: int = 0) -> tuple[int, ...]:
    """The order in which a chat sees an item's options: by the item's id, so always the same."""
    order = list(range(len(item.options)))
    random.Random(int(text_sha256(f"{seed} {item.id}")[:12], 16)).shuffle(order)
    return tuple(order)


def question(item: ChoiceItem, order: Sequence[int]) -> tuple[Message, ...]:
    """The item as a chat is asked it, options under the last message."""
    *earlier, last = item.messages
    lines = [f"{letter}. {item.options[at]}" for letter, at in zip(_LETTERS, order, strict=False)]
    asked = _ASKED[item.language].format(letters="/".join(_LETTERS[: len(order)]))
    return (*earlier, Message("user", "\n".join([last.content, "", *lines, "", asked])))


def read_letter(text: str, options: int) -> int | None:
    """The place of the letter that a reply begins with; None for anything else.

    `B`, `(b)`, `**B**`, `B. She is proud`, `Answer: B` and `答案是B` are 1; `Both`, `A or B`,
    `A friend would` and `B) or C)` are none.
    """
    found = _LETTER.match(text)
    place = -1 if found is None else _LETTERS.find(found[1].upper())
    if found is None or not 0 <= place < options:
        return None
    others = set(re.findall(_ALONE, text[found.end() :])) - {_LETTERS[place]}
    return None if others & set(_LETTERS[:options]) else place


def read_choice(item: ChoiceItem, order: Sequence[int], reply: str) -> Choice:
    """A chat's reply to an item whose options it saw in that order."""
    place = read_letter(reply, len(order))
    return Choice(item, None if place is None else order[place], tuple(order))


def read_label(
    text: str, labels: Sequence[str], aliases: Mapping[str, str] | None = None
) -> str | None:
    """The one label that a reply names; None where it names none, or several.

    A reply that is a label, or has it on its first line alone, is that; else the labels that stand
    in it as words of their own are counted; a longer one hides those within it, as `不高兴` does
    `高兴`. Case does not matter. `aliases` are other words for labels: `{"joyful": "joy"}`.
    """
    known = {label.lower(): label for label in labels}
    known |= {word.lower(): label for word, label in (aliases or {}).items()}
    lines = text.strip().splitlines() or [""]
    for said in (text, lines[0]):
        bare = said.strip(" \t\n\r.。:：!！\"'“”*()[]`").lower()
        if bare in known:
            return known[bare]
    found, rest = set(), text.lower()
    for word in sorted(known, key=len, reverse=True):
        rest, count = re.subn(_alone(word), " ", rest)
        found |= {known[word]} if count else set()
    return found.pop() if len(found) == 1 else None


_LETTERS = string.ascii_uppercase


def _alone(word: str) -> str:
    edge = r"(?<![a-z]){}(?![a-z])" if word.isascii() else "{}"
    return edge.format(re.escape(word))

"""A guard beside a conversation: what it adds to a reply, replaces or only marks, and why.

`guard(conversation, reply)` returns a `Verdict`; `hen chat --guard` and whoever serves replies call
it. On a sign of a crisis the hand-off message with resources of the place is added to a reply that
names no help; a reply with details of a method is replaced by it. A diagnosis, a dose, a promise
about a court or a cue of dependence is marked. It is no clinician, and no filter that a
determined user cannot pass.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from hen_jax.core.errors import InputError
from hen_jax.empathy.labels import Language
from hen_jax.evaluation.reply_rules import is_chinese
from hen_jax.measures.safety.signs import crisis_signs, refers, reply_signs
from hen_jax.text.conversation import Message

Action = Literal["pass", "mark", "add", "replace"]


class Verdict(NamedTuple):
    """What becomes of a reply."""

    action: Action
    text: str  # what is to be said: the reply, with the hand-off, or the hand-off alone
    reasons: tuple[str, ...]  # kinds of signs, never anybody's words: fit for a log


Guard = Callable[[Sequence[Message], str], Verdict]
"""`guard(conversation, reply)`: the conversation ends with what the reply answers."""

HANDOFF: Mapping[Language, str] = {
    "en": (
        "What you wrote worries me, and I am a program: I cannot keep you safe. Please talk to a "
        "person now. {lines}{emergency} If you can, tell someone near you, and stay where others "
        "are."
    ),
    "zh": (
        "你写的这些让我很担心，而我只是一个程序，没办法守着你。请现在就和真人说说。"
        "{lines}{emergency}如果可以，告诉身边一个信得过的人，别一个人待着。"
    ),
}
"""Ours."""

_LINES = {"en": "{name}: {reach}. ", "zh": "{name}：{reach}。"}
_EMERGENCY = {"en": "In danger right now: {number}.", "zh": "眼下有危险请拨{number}。"}

DEFAULT_PLACE: Mapping[Language, str] = {"en": "other", "zh": "CN"}


def open_guard(place: str | None = None) -> Guard:
    """A guard whose resources are those of a country, such as `US`; else by the language.

    Raises:
      InputError: no such country in `resources.yaml`.
    """
    if place is not None and place not in resource_table():
        known = ", ".join(resource_table())
        raise InputError(f"place {place!r}; allowed: {known}")

    def guard(conversation: Sequence[Message], reply: str) -> Verdict:
        asked = next((one.content for one in reversed(conversation) if one.role == "user"), "")
        language = language_of(asked or reply)
        crisis = {
            sign.kind for one in _lately(conversation) for sign in crisis_signs(one, language)
        }
        harm = {sign.kind for sign in reply_signs(reply, language)}
        reasons = tuple(sorted(crisis) + sorted(harm))
        message = handoff(language, place or DEFAULT_PLACE[language])
        if "method" in harm:
            return Verdict("replace", message, reasons)
        if crisis and not refers(reply, language):
            return Verdict("add", f"{reply}\n\n{message}", reasons)
        return Verdict("mark" if harm or crisis else "pass", reply, reasons)

    return guard


def handoff(language: Language, place: str) -> str:
    """The hand-off message for a country of `resources.yaml`."""
    found = resource_table()[place]
    lines = "".join(_LINES[language].format(**line) for line in found["lines"])
    number = found["emergency"]
    emergency = _EMERGENCY[language].format(number=number) if number else ""
    return HANDOFF[language].format(lines=lines, emergency=emergency)


@functools.cache
def resource_table() -> Mapping[str, Any]:
    """Country -> emergency number and lines."""
    path = Path(str(resources.files("hen_jax.measures.safety"))) / "resources.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def language_of(text: str) -> Language:
    """`zh` where a fifth of the letters or more are Chinese, else `en`."""
    letters = [letter for letter in text if letter.isalpha()]
    chinese = sum(map(is_chinese, letters))
    return "zh" if letters and chinese >= 0.2 * len(letters) else "en"


def _lately(conversation: Sequence[Message], turns: int = 2) -> list[str]:
    """What the user said last: a sign is not forgotten at once, nor kept for ever."""
    return [one.content for one in conversation if one.role == "user"][-turns:]

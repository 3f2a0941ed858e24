"""What each model is told: the user simulator, the two branches, the writer of hard negatives."""

from collections.abc import Sequence
from typing import Literal

from hen_jax.data.judged import transcript
from hen_jax.data.patterns import Guide
from hen_jax.data.word_ranker import word_list
from hen_jax.synthesis.materials import Materials
from hen_jax.synthesis.scenes import Scene
from hen_jax.text.conversation import Message
from hen_jax.text.prompts import pattern_message

Steer = Literal["empathetic", "cold", "gushing"]

COLD_FROM = 0.5
"""A branch that shall not be empathetic is cold where at least so much empathy is wanted, and else
gushing: it misses the level from the far side."""

_TOP = 3
"""Dimensions that the empathetic branch is told count most."""


def against(guide: Guide) -> Steer:
    """How the rejected branch of a context is steered."""
    return "cold" if guide.pattern.level >= COLD_FROM else "gushing"


def user_asked(
    scene: Scene,
    guide: Guide,
    materials: Materials,
    users: Sequence[str],
    replies: Sequence[str],
) -> tuple[Message, ...]:
    """The conversation as the user simulator sees it: its own words are the assistant's."""
    language, prompts = materials.language, materials.prompts
    system = prompts["user"].format(
        **vars(scene.persona),
        about=guide.context.words.spoken(language),
        opening=scene.opening,
        turns=scene.turns,
    )
    said = [Message("system", _one_line(system)), Message("user", prompts["begin"])]
    for own, reply in zip(users, replies, strict=True):
        said += [Message("assistant", own), Message("user", reply)]
    if len(users) == scene.turns - 1 and users:
        said[-1] = Message("user", f"{said[-1].content}\n\n{prompts['last']}")
    return tuple(said)


def reply_asked(
    guide: Guide,
    materials: Materials,
    steer: Steer,
    users: Sequence[str],
    replies: Sequence[str],
    like: str | None = None,
) -> tuple[Message, ...]:
    """The conversation up to the reply, under a steered system message; `like` sets the length."""
    lines = _steering(guide, materials, steer)
    lines.append(_one_line(materials.prompts["coherency"]))
    if like is not None:
        lines.append(materials.prompts["length"].format(words=length_in_words(like)))
    joint = {"en": " ", "zh": ""}[materials.language]
    return (Message("system", joint.join(lines)), *reply_messages(users, replies))


def hard_asked(
    scene: Scene, materials: Materials, users: Sequence[str], replies: Sequence[str]
) -> tuple[Message, ...]:
    """Asks for a reply in the style of the last of `replies` that has the scene's fault."""
    assert scene.fault is not None
    *earlier, good = replies
    said = reply_messages(users, earlier)
    text = materials.prompts["hard"].format(
        fault=materials.faults[scene.fault],
        conversation="\n".join(transcript(said)),
        reply=good,
    )
    return (Message("user", text),)


def reply_messages(users: Sequence[str], replies: Sequence[str]) -> list[Message]:
    """Users and replies in turn; one reply fewer leaves the user the last word."""
    said = []
    for at, user in enumerate(users):
        said.append(Message("user", user))
        if at < len(replies):
            said.append(Message("assistant", replies[at]))
    return said


def length_in_words(text: str) -> int:
    """Words, or characters of Chinese, rounded to fives: an order of magnitude for a writer."""
    return max(5, 5 * round(len(word_list(text)) / 5))


def _steering(guide: Guide, materials: Materials, steer: Steer) -> list[str]:
    if steer != "empathetic":
        return [_one_line(materials.prompts[steer])]
    language, pattern = materials.language, guide.pattern
    ranked = sorted(pattern.weights, key=lambda name: -pattern.weights[name])[:_TOP]
    comma = {"en": "; ", "zh": "、"}[language]
    counts = comma.join(materials.dimensions[name] for name in ranked)
    asked = pattern_message(guide.context.words, pattern, language).content
    return [asked, materials.prompts["weighs"].format(dimensions=counts)]


def _one_line(text: str) -> str:
    """A prompt without the line breaks of its file; Chinese has no space in their place."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = lines[0] if lines else ""
    for line in lines[1:]:
        found += (" " if found[-1].isascii() and line[0].isascii() else "") + line
    return found

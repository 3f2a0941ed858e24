"""The words that ask for empathy: conditions and patterns as system prompts, in both languages.

HEN publishes that its four tasks give the statement with its emotion and, by task, a role and a
personality; how it words them is not public, so the sentences and the high-context rules are
ours. All of it is data: a task changes which lines appear, never a line.
"""

import dataclasses

from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.empathy.labels import (
    EMOTIONS,
    FINER_EMOTIONS,
    PERSONALITIES,
    ROLE_WORDS,
    Language,
    Words,
)
from hen_jax.empathy.patterns import PATTERNS, Pattern
from hen_jax.empathy.traits import AGES, GENDERS, SCENES, TRAITS, Level
from hen_jax.text.conversation import Message

HIGH_CONTEXT_RULES: tuple[Words, ...] = (
    Words("Reply as people who know each other do: one or two short spoken sentences.",
          "像身边的人那样回话，一两句口语就够。"),
    Words("Leave the feeling unnamed; show that you caught it.",
          "不点破情绪，让对方觉得你懂。"),
    Words("Care through what you notice, offer or do.",
          "关心落在你留意到的、能帮上的小事里。"),
    Words("No lectures, no lists.",
          "不讲大道理，不列条条。"),
)  # fmt: skip
"""High-context style: indirect, short, colloquial, in the role of the one who replies."""


@dataclasses.dataclass(frozen=True)
class ConditionWords:
    """How each condition is put; the braces take the label's own words."""

    emotion: str
    role: str
    personality: str
    traits: str
    age: str
    gender: str
    scene: str


CONDITIONS: dict[Language, ConditionWords] = {
    "en": ConditionWords(
        emotion="They feel: {words}.",
        role="You are {words}.",
        personality="Your personality: {label} ({words}).",
        traits="Your character: {words}.",
        age="Your age: {words}.",
        gender="You are {words}.",
        scene="You two are {words}.",
    ),
    "zh": ConditionWords(
        emotion="对方的心情：{words}。",
        role="你是{words}。",
        personality="你的性格：{label}（{words}）。",
        traits="你的性格：{words}。",
        age="你的年纪：{words}。",
        gender="你的性别：{words}。",
        scene="你们在{words}。",
    ),
}


@dataclasses.dataclass(frozen=True)
class Circumstances:
    """What CPED adds about the one who replies; anything may be unknown."""

    traits: tuple[tuple[str, Level], ...] = ()  # of the Big Five: ("openness", "high"), ...
    age: str | None = None
    gender: str | None = None
    scene: str | None = None


NO_CIRCUMSTANCES = Circumstances()


CONTEXT_WORDS = Words(
    "The conversation is about {words}. Empathy wanted, from 0 to 1: {level:g}.",
    "这次谈话关于{words}。需要的共情程度（0 到 1）：{level:g}。",
)


WISH_WORDS = Words(
    "Empathy wanted, from 1 to 3: {level:g}. The user {wish}.",
    "需要的共情程度（1 到 3）：{level:g}。对方{wish}。",
)


def hed_messages(
    statement: str,
    *,
    emotion: str,
    role: str | None = None,
    personality: str | None = None,
    language: Language = "en",
    history: tuple[Message, ...] = (),
    circumstances: Circumstances = NO_CIRCUMSTANCES,
) -> tuple[Message, ...]:
    """The prompt of a high-context empathy record: style, the given conditions, the statement.

    `hed_messages("Exam tomorrow.", emotion="worried", role="parent")` is a system message that
    ends `You are their parent. They feel: worried.` and the user message `Exam tomorrow.`
    """
    words = CONDITIONS[language]
    lines = [rule.spoken(language) for rule in HIGH_CONTEXT_RULES]
    if role is not None:
        lines.append(words.role.format(words=ROLE_WORDS[role].spoken(language)))
    if personality is not None:
        described = PERSONALITIES[personality].spoken(language)
        lines.append(words.personality.format(label=personality, words=described))
    lines += _circumstance_lines(circumstances, language)
    lines.append(words.emotion.format(words=EMOTIONS[emotion].spoken(language)))
    return (
        Message("system", _paragraph(lines, language)),
        *history,
        Message("user", statement),
    )


def context_message(context: str, language: Language = "en") -> Message:
    """The system message that asks in words for a context's empathy pattern.

    This is the "system prompt" arm against which an expert adapter is measured: the adapter must
    do without it.
    """
    return pattern_message(CONTEXTS[context].words, PATTERNS[context], language)


def pattern_message(about: Words, pattern: Pattern, language: Language = "en") -> Message:
    """`context_message` of any pattern; `about` says what the conversation is about."""
    words = about.spoken(language)
    lines = [CONTEXT_WORDS.spoken(language).format(words=words, level=pattern.level)]
    lines += [rule.spoken(language) for rule in pattern.rules]
    return Message("system", _paragraph(lines, language))


def wish_message(level: float, wish: str, language: Language = "en") -> Message:
    """The system message that says how much empathy is wanted, from 1 to 3, and what for.

    `wish` goes on after "The user": `wants the steps and no fuss around them`.
    """
    return Message("system", WISH_WORDS.spoken(language).format(level=level, wish=wish))


def condition_message(given: dict[str, str], language: Language = "en") -> Message:
    """The system message that gives an emotion, a role or both, and no rule of style.

    `condition_message({"role": "parent"})` says `You are their parent.`
    """
    words, lines = CONDITIONS[language], []
    if "role" in given:
        lines.append(words.role.format(words=ROLE_WORDS[given["role"]].spoken(language)))
    if "emotion" in given:
        felt = FINER_EMOTIONS[given["emotion"]].spoken(language)
        lines.append(words.emotion.format(words=felt))
    return Message("system", _paragraph(lines, language))


def _circumstance_lines(given: Circumstances, language: Language) -> list[str]:
    words, lines = CONDITIONS[language], []
    if given.traits:
        levels = [TRAITS[trait][level].spoken(language) for trait, level in given.traits]
        comma = {"en": ", ", "zh": "，"}[language]
        lines.append(words.traits.format(words=comma.join(levels)))
    for sentence, labels, label in (
        (words.age, AGES, given.age),
        (words.gender, GENDERS, given.gender),
        (words.scene, SCENES, given.scene),
    ):
        if label is not None:
            lines.append(sentence.format(words=labels[label].spoken(language)))
    return lines


def _paragraph(lines: list[str], language: Language) -> str:
    return {"en": " ", "zh": ""}[language].join(lines)

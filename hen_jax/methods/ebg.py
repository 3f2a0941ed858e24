"""Empathizing Before Generation: an analysis and an emotion label first, then the reply.

Follows the published description (Zhu, Jiang et al., 2024, PRCV): a chain of thought that infers
the emotion, learnt first, and a reply learnt on top of it. Prompts, the form of an analysis and
the labels are ours. Untrained models can be asked in the same two calls.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.empathy.labels import Language
from hen_jax.methods.emotions import EBG_LABELS, Attribute
from hen_jax.methods.play import Messages, Method, Outcome, Steps, ask, ask_parsed
from hen_jax.methods.sections import is_chinese_text, parse_sections, with_system
from hen_jax.text.conversation import Message, message_row

EbgStage = Literal[1, 2]
"""1 trains the analysis and the label, 2 the reply, with the analysis only read."""


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The sentences of one language."""

    analyse: str
    again: str
    reply: str
    write: str
    keys: tuple[str, str, str]
    attributes: Mapping[Attribute, str]


_FRAMES: dict[Language, _Frame] = {
    "en": _Frame(
        analyse=(
            "Before anybody replies, work out what the user feels. Answer in exactly these lines:\n"
            "Analysis: what happened, and why it matters to them, in one or two sentences\n"
            "Attribute: positive, negative or neutral\nEmotion: one of {labels}"
        ),
        again="Answer again, in these three lines only: Analysis: ... Attribute: ... Emotion: ...",
        reply="Now reply to them, with that understanding, in one to three spoken sentences.",
        write=(
            "Someone who is {emotion} says the last message. In one or two sentences, what "
            "happened, and why does it matter to them? Write only that."
        ),
        keys=("Analysis", "Attribute", "Emotion"),
        attributes={"positive": "positive", "negative": "negative", "neutral": "neutral"},
    ),
    "zh": _Frame(
        analyse=(
            "在回复之前，先弄清用户的感受。严格按下面几行回答：\n"
            "分析：发生了什么、为什么对他重要，一两句话\n"
            "属性：积极、消极或中性\n情绪：以下之一：{labels}"
        ),
        again="请重新回答，只写这三行：分析：…… 属性：…… 情绪：……",
        reply="现在带着这份理解回复他，一到三句口语。",
        write="说最后一句话的人心情是“{emotion}”。用一两句话写出发生了什么、为什么对他重要，只写这些。",
        keys=("分析", "属性", "情绪"),
        attributes={"positive": "积极", "negative": "消极", "neutral": "中性"},
    ),
}


class Analysis(NamedTuple):
    """What the first call says."""

    analysis: str
    attribute: Attribute
    emotion: str


def analysis_messages(
    conversation: Messages, labels: Sequence[str], language: Language
) -> Messages:
    """The first call: the conversation behind the instruction to analyse it."""
    return with_system(conversation, _FRAMES[language].analyse.format(labels=", ".join(labels)))


def _reply_messages(asked: Messages, analysis: str, language: Language) -> Messages:
    """The second call: the first one, its answer, and the wish for a reply."""
    wish = Message("user", _FRAMES[language].reply)
    return (*asked, Message("assistant", analysis), wish)


def analysis_text(found: Analysis, language: Language) -> str:
    """An analysis in the form that `parse_analysis` reads."""
    frame = _FRAMES[language]
    said = (found.analysis, frame.attributes[found.attribute], found.emotion)
    return "\n".join(f"{key}: {text}" for key, text in zip(frame.keys, said, strict=True))


def parse_analysis(text: str, labels: Sequence[str], language: Language) -> Analysis | None:
    """The analysis that an answer is, or None: a key is missing, or a label is none."""
    frame = _FRAMES[language]
    found = parse_sections(text, frame.keys)
    if found is None:
        return None
    said = found[frame.keys[0]]
    attribute, emotion = (found[key].strip(" .。") for key in frame.keys[1:])
    named: dict[str, Attribute] = {word: name for name, word in frame.attributes.items()}
    lower = {label.lower(): label for label in labels}
    if attribute.lower() not in named or emotion.lower() not in lower:
        return None
    return Analysis(said, named[attribute.lower()], lower[emotion.lower()])


def ebg(labels: Mapping[str, Attribute] = EBG_LABELS, language: Language | None = None) -> Method:
    """The method `ebg`: two calls, of which the second reads the first."""

    def steps(conversation: Messages) -> Steps:
        spoken = language or ("zh" if is_chinese_text(conversation) else "en")
        asked = analysis_messages(conversation, list(labels), spoken)
        again = _FRAMES[spoken].again
        found, last = yield from ask_parsed(
            asked, lambda text: parse_analysis(text, list(labels), spoken), again
        )
        if found is None:
            plain = yield from ask(conversation)
            return Outcome(plain, {"answer": last}, "its analysis was not of the form asked for")
        text = yield from ask(_reply_messages(asked, analysis_text(found, spoken), spoken))
        return Outcome(text, found._asdict())

    return steps


def writing_messages(conversation: Messages, emotion: str, language: Language) -> Messages:
    """What a model is asked that writes the analysis of a dialogue whose emotion is known."""
    wish = _FRAMES[language].write.format(emotion=emotion)
    return (*conversation, Message("assistant", "..."), Message("user", wish))


def training_row(
    name: str,
    dialogue: Messages,
    found: Analysis,
    stage: EbgStage,
    *,
    labels: Mapping[str, Attribute] = EBG_LABELS,
    language: Language = "en",
) -> dict[str, Any]:
    """One row of the schema `messages`: a dialogue that ends with a reply, with its analysis.

    In stage 1 the analysis trains and the row ends with it; in stage 2 only the reply trains.

    Raises:
      InputError: the dialogue does not end with a reply, or its emotion is no label.
    """
    *before, reply = dialogue
    if reply.role != "assistant" or not before:
        raise InputError(f"record {name}: ends with the {reply.role}; end it with a reply")
    if found.emotion not in labels:
        raise InputError(f"record {name}: emotion {found.emotion!r}; allowed: {', '.join(labels)}")
    read_only = tuple(
        dataclasses.replace(one, trains=False) if one.role == "assistant" else one for one in before
    )
    asked = analysis_messages(read_only, list(labels), language)
    said = Message("assistant", analysis_text(found, language), trains=stage == 1)
    if stage == 1:
        messages = (*asked, said)
    else:
        wish = Message("user", _FRAMES[language].reply)
        messages = (*asked, said, wish, Message("assistant", reply.content, trains=True))
    return {"id": f"{name}/{stage}", "group": name, "messages": list(map(message_row, messages))}

"""Hybrid Empathetic Framework: a small model proposes emotions, the large one decides.

Follows the published description (Yang et al., 2024, arXiv 2402.11801): the large model chooses
among the small one's likeliest emotions first and among the rest only if none of them fits; it is
told which words the small model attends to; then it replies. Words, `top_k` and the form of the
answers are ours.
"""

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any

from hen_jax.empathy.labels import Language
from hen_jax.methods.emotion_models import EmotionModel, likeliest_labels
from hen_jax.methods.play import Messages, Method, Outcome, Steps, ask
from hen_jax.methods.sections import is_chinese_text, parse_label, with_system
from hen_jax.text.conversation import Reply


@dataclasses.dataclass(frozen=True)
class HefOptions:
    """What is switched on; each switch off is one of the paper's ablations.

    `two_stage` False asks once, about all labels; `cause` False names no words. Without a small
    model there are neither candidates nor cause words.
    """

    top_k: int = 3
    two_stage: bool = True
    cause: bool = True
    most_words: int = 5  # of the cause words that are named


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The sentences of one language."""

    choose: str
    fallback: str
    none: str
    rest: str
    words: str
    reply: str
    unknown: str


_FRAMES: dict[Language, _Frame] = {
    "en": _Frame(
        choose="Which emotion does the user feel? Answer with one word of these only: {labels}.",
        fallback="Only if none of them fits, answer: none.",
        none="none",
        rest="None of the likeliest fits. Answer with one word of these only: {labels}.",
        words="Heed these words of theirs, from which the feeling seems to come: {words}.",
        reply=(
            "The user feels {emotion}. {words}Take in what caused it, then reply in one to three "
            "spoken sentences."
        ),
        unknown="something that is not said outright",
    ),
    "zh": _Frame(
        choose="用户是什么情绪？只用下面的一个词回答：{labels}。",
        fallback="只有在都不合适的时候，才回答：都不是。",
        none="都不是",
        rest="最可能的几个都不合适。只用下面的一个词回答：{labels}。",
        words="留意对方的这些词，情绪像是从这里来的：{words}。",
        reply="用户的情绪是{emotion}。{words}先想清楚起因，再用一到三句口语回复。",
        unknown="没有明说的",
    ),
}


def hef(
    model: EmotionModel | None,
    labels: Sequence[str],
    options: HefOptions = HefOptions(),
    language: Language | None = None,
) -> Method:
    """The method `hef`; `model` None leaves the large model to itself.

    Raises:
      ValueError: the small model has a label that is not offered, or `top_k` is below 1.
    """
    if options.top_k < 1 or (model is not None and not set(model.labels) <= set(labels)):
        raise ValueError(
            "the small model's labels must be among those offered, and top_k 1 or more"
        )

    def steps(conversation: Messages) -> Steps:
        spoken = language or ("zh" if is_chinese_text(conversation) else "en")
        trace, emotion = yield from _emotion(conversation, model, labels, options, spoken)
        words = (
            []
            if model is None or not options.cause
            else [word for word, _ in model.cause_words(conversation)[: options.most_words]]
        )
        text = yield from ask(reply_call(conversation, emotion, words, spoken))
        trace |= {"emotion": emotion, "cause_words": words}
        return Outcome(text, trace, "no emotion was named" if emotion is None else None)

    return steps


def choice_call(
    conversation: Messages, labels: Sequence[str], language: Language, *, fallback: bool
) -> Messages:
    """The call that offers labels; with `fallback` also the answer that none of them fits."""
    frame = _FRAMES[language]
    text = frame.choose.format(labels=", ".join(labels))
    return with_system(conversation, f"{text} {frame.fallback}" if fallback else text)


def rest_call(conversation: Messages, labels: Sequence[str], language: Language) -> Messages:
    """The second call, about the labels that the small model did not propose."""
    text = _FRAMES[language].rest.format(labels=", ".join(labels))
    return with_system(conversation, text)


def reply_call(
    conversation: Messages, emotion: str | None, words: Sequence[str], language: Language
) -> Messages:
    """The last call: the emotion, the cause words if there are any, the wish for a reply."""
    frame = _FRAMES[language]
    named = frame.words.format(words=", ".join(words)) + " " if words else ""
    said = frame.reply.format(emotion=emotion or frame.unknown, words=named)
    return with_system(conversation, said)


def _emotion(
    conversation: Messages,
    model: EmotionModel | None,
    labels: Sequence[str],
    options: HefOptions,
    language: Language,
) -> Generator[Sequence[Messages], Sequence[Reply], tuple[dict[str, Any], str | None]]:
    """What is traced of the choice, and the emotion."""
    if model is None or not options.two_stage:
        text = yield from ask(choice_call(conversation, labels, language, fallback=False))
        return {"answer": text}, parse_label(text, labels)
    first = likeliest_labels(model, conversation, options.top_k)
    frame = _FRAMES[language]
    text = yield from ask(choice_call(conversation, first, language, fallback=True))
    trace: dict[str, Any] = {"candidates": first, "answer": text}
    chosen = parse_label(text, (*first, frame.none))
    rest = [label for label in labels if label not in first]
    if chosen != frame.none or not rest:
        return trace, None if chosen == frame.none else chosen
    text = yield from ask(rest_call(conversation, rest, language))
    return trace | {"second": text}, parse_label(text, rest)

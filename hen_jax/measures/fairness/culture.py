"""How high-context and how formal a reply is, from 0 to 1, by its wording; zh and en.

Both are composites of ours, to compare replies of one language with each other; a difference
between languages is one of the marks, too. The parts stand beside the whole.
"""

import re
from collections.abc import Mapping

from hen_jax.empathy.formulas import formulas_in
from hen_jax.empathy.labels import Language
from hen_jax.empathy.wordings import ADVICE, EMOTION_WORDS, count_words
from hen_jax.evaluation.reply_rules import words_of

_SHORT: Mapping[Language, int] = {"en": 25, "zh": 40}
"""Words, or characters, up to which a reply is short."""

_FORMAL: Mapping[Language, re.Pattern[str]] = {
    "en": re.compile(
        r"\b(furthermore|therefore|however|moreover|regarding|sincerely|kindly|please|"
        r"appreciate|assist|ensure|do not|cannot|it is|you are|i am|i would)\b",
        re.IGNORECASE,
    ),
    "zh": re.compile(r"您|请|敬|感谢|此外|因此|然而|关于|建议|希望|以便|予以|进行"),
}
_CASUAL: Mapping[Language, re.Pattern[str]] = {
    "en": re.compile(
        r"\b\w+'(?:s|re|ve|ll|d|m|t)\b|\b(yeah|ok|okay|hey|oh|wow|gonna|kinda|stuff|mate|hm+)\b",
        re.IGNORECASE,
    ),
    "zh": re.compile(r"[啊呀吧呢嘛哈哦嗯噢哎咱啦]|咋|啥|挺|老是|得了"),
}


def high_context_parts(text: str, language: Language) -> dict[str, float]:
    """1 where a reply is short, names no feeling, gives no advice, has no formula; else less.

    Length beyond `SHORT` counts `SHORT / length`; each mark found halves its part.
    """
    length = len(words_of(text))
    return {
        "short": min(1.0, _SHORT[language] / length) if length else 0.0,
        "unnamed": 0.5 ** count_words(text, EMOTION_WORDS[language], language),
        "unadvised": 0.5 ** count_words(text, ADVICE[language], language),
        "unformulaic": 0.5 ** len(formulas_in(text, language)),
    }


def high_context_score(text: str, language: Language) -> float:
    """The mean of the four parts; 0 for an empty reply."""
    parts = high_context_parts(text, language)
    return sum(parts.values()) / len(parts) if text.strip() else 0.0


def formality(text: str, language: Language) -> float | None:
    """Formal marks as a share of formal and casual ones; None where there is neither."""
    plain = text.replace("’", "'")
    formal = len(_FORMAL[language].findall(plain))
    casual = len(_CASUAL[language].findall(plain))
    return formal / (formal + casual) if formal + casual else None

"""Chain-of-Empathy: name the feeling, find its cause through a lens, choose a strategy, reply.

Follows the published description (Lee, Lee, Shin, Bae and Hahn, 2023, arXiv 2311.04915): reasoning
before the reply, after one school of therapy. How they word their prompts is not public; the words,
the form of the answer and the fallback are ours. The strategies are the three of EPITOME.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from hen_jax.empathy.labels import Language
from hen_jax.methods.lenses import Lens, load_lens
from hen_jax.methods.play import Messages, Method, Outcome, Steps, ask, ask_parsed
from hen_jax.methods.sections import is_chinese_text, listed, parse_sections, with_system

Strategy = Literal["ER", "IP", "EX"]

_STRATEGIES: dict[Language, dict[str, Strategy]] = {
    "en": {"emotional reaction": "ER", "interpretation": "IP", "exploration": "EX"},
    "zh": {"情感回应": "ER", "理解诠释": "IP", "探问": "EX"},
}
"""EPITOME's three mechanisms, as prompts call them."""

VARIANTS = ("base", "cbt", "dbt", "pct", "rt")
"""`base` has no reasoning before the strategy; the others have the lens of their name."""


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The sentences of one language; `keys` begin the lines of an answer."""

    role: str
    base: str
    lens: str
    strategies: str
    form: str
    again: str
    keys: tuple[str, str, str, str]


FRAMES: dict[Language, _Frame] = {
    "en": _Frame(
        role="Someone tells you what troubles them. Answer as a supportive listener.",
        base="First choose how to show empathy, then reply.",
        lens=(
            "Think before you reply, in the spirit of {title}. 1. Name the words that carry the "
            "feeling. 2. Say in a sentence what the cause may be; look for {looks_for}. 3. Choose "
            "how to show empathy, {aims_at}. 4. Reply in one to three spoken sentences."
        ),
        strategies=(
            "Ways to show empathy: emotional reaction (warmth, concern), interpretation (saying "
            "what you understand of it), exploration (asking gently for more)."
        ),
        form="Answer in exactly these lines:",
        again="Answer again, in exactly these lines and nothing else:",
        keys=("Emotion words", "Cause", "Strategy", "Reply"),
    ),
    "zh": _Frame(
        role="有人向你说起心里的事。请作为支持他的倾听者来回应。",
        base="先选定怎样表达共情，再回复。",
        lens=(
            "回复之前先按{title}的思路想一想。1. 找出带情绪的词。2. 用一句话说出可能的原因；要看的"
            "是{looks_for}。3. 选定怎样表达共情，目的是{aims_at}。4. 用一到三句口语回复。"
        ),
        strategies=(
            "表达共情的方式：情感回应（关心、温暖）、理解诠释（说出你的理解）、"
            "探问（温和地多问一点）。"
        ),
        form="严格按下面几行回答：",
        again="请重新回答，严格按下面几行，不要写别的：",
        keys=("情绪词", "原因", "策略", "回复"),
    ),
}


class CoeRecord(NamedTuple):
    """What an answer holds; the first two are empty of `base`."""

    emotion_words: tuple[str, ...]
    cause: str
    strategy: Strategy
    response: str


def coe_messages(conversation: Messages, lens: Lens | None, language: Language) -> Messages:
    """The conversation, behind the instruction; `lens` None is the variant `base`."""
    frame = FRAMES[language]
    think = (
        frame.base
        if lens is None
        else frame.lens.format(
            title=lens.title.spoken(language),
            looks_for=lens.looks_for.spoken(language),
            aims_at=lens.aims_at.spoken(language),
        )
    )
    form = _form(frame.form, lens, language)
    return with_system(conversation, "\n".join((frame.role, think, frame.strategies, form)))


def parse_coe(text: str, lens: Lens | None, language: Language) -> CoeRecord | None:
    """The record that an answer is, or None: a key is missing, or the strategy is none."""
    keys = _keys(lens, language)
    found = parse_sections(text, keys)
    if found is None:
        return None
    strategy = _strategy(found[keys[-2]], language)
    if strategy is None:
        return None
    words = () if lens is None else tuple(listed(found[keys[0]]))
    cause = "" if lens is None else found[keys[1]]
    return CoeRecord(words, cause, strategy, found[keys[-1]])


def coe(variant: str, language: Language | None = None) -> Method:
    """The method `coe_VARIANT`; without `language` that of what the user says.

    An answer that is of no form, twice, falls back on a plain reply, and says so.

    Raises:
      InputError: no such variant.
    """
    lens = None if variant == "base" else load_lens(variant)

    def steps(conversation: Messages) -> Steps:
        spoken = language or ("zh" if is_chinese_text(conversation) else "en")
        asked = coe_messages(conversation, lens, spoken)
        again = _form(FRAMES[spoken].again, lens, spoken)
        record, last = yield from ask_parsed(asked, lambda x: parse_coe(x, lens, spoken), again)
        if record is None:
            plain = yield from ask(conversation)
            return Outcome(plain, {"answer": last}, "its reasoning was not of the form asked for")
        trace = {key: value for key, value in record._asdict().items() if key != "response"}
        return Outcome(record.response, trace)

    return steps


def balance(strategies: Iterable[str]) -> float:
    """How evenly the strategies are used: entropy over ln 3, 0 for one alone, 1 for all alike.

    NaN of no strategy at all. The score is ours; the paper describes the spread in words.
    """
    counts = Counter(strategies)
    total = sum(counts.values())
    if not total:
        return math.nan
    shares = [count / total for count in counts.values()]
    return abs(sum(share * math.log(share) for share in shares)) / math.log(3)


def _keys(lens: Lens | None, language: Language) -> tuple[str, ...]:
    keys = FRAMES[language].keys
    return keys[2:] if lens is None else keys


def _form(head: str, lens: Lens | None, language: Language) -> str:
    return "\n".join((head, *(f"{key}: ..." for key in _keys(lens, language))))


def _strategy(text: str, language: Language) -> Strategy | None:
    """The one strategy that is named."""
    lower = text.lower()
    named: set[Strategy] = {label for name, label in _STRATEGIES[language].items() if name in lower}
    return named.pop() if len(named) == 1 else None

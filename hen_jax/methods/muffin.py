"""Muffin: candidates, feedback in three facets, and which of them are helpful.

Follows the published description (Wang et al., 2024, arXiv 2401.05928): a reply is helpful if it
is empathetic, if its strategy adheres to motivational interviewing, and if it is coherent. The
feedback comes from a judge, a classifier or files; questions and words are ours. The contrastive
loss is in `objectives.contrastive`. As a method without training, ours, the first helpful
candidate is the reply.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hen_jax.empathy.labels import Language, Words
from hen_jax.methods.play import Messages, Method, Outcome, Steps
from hen_jax.methods.sections import is_chinese_text, parse_label
from hen_jax.text.conversation import Message, Reply

CANDIDATES = 10
"""Candidates to each context, as published."""

VotingRule = Literal["and", "majority"]


class Facet(NamedTuple):
    """One question about a candidate."""

    name: str
    labels: tuple[str, ...]
    unhelpful: str  # the label that makes a candidate unhelpful
    question: Words
    sees: Literal["all", "last"]  # of the conversation: empathy and skill see the last turn alone


FACETS: tuple[Facet, ...] = (
    Facet(
        "coherence",
        ("yes", "no"),
        "no",
        Words(
            "Does the reply fit what was said before? Answer yes or no.",
            "这句回复和前面的话接得上吗？回答 yes 或 no。",
        ),
        "all",
    ),
    Facet(
        "skill",
        ("adherent", "non-adherent", "other"),
        "non-adherent",
        Words(
            "Adherent replies ask openly, affirm, reflect or leave the choice to the person; "
            "non-adherent ones confront, direct, warn or advise unasked. Which is the reply? "
            "Answer adherent, non-adherent or other.",
            "adherent 指开放地问、肯定、复述感受或把选择留给对方；"
            "non-adherent 指顶撞、命令、警告或未被问就给建议。"
            "这句回复是哪一种？回答 adherent、non-adherent 或 other。",
        ),
        "last",
    ),
    Facet(
        "empathy",
        ("none", "weak", "strong"),
        "none",
        Words(
            "How much empathy does the reply show? Answer none, weak or strong.",
            "这句回复表达了多少共情？回答 none、weak 或 strong。",
        ),
        "last",
    ),
)
"""In the order of the reference's files. The labels are English in both languages."""

_SHOWN: Mapping[Language, tuple[str, str, str]] = {
    "en": ("The user said:", "Reply:", "The conversation:"),
    "zh": ("用户说：", "回复：", "对话："),
}


def facet_call(
    conversation: Messages, candidate: str, facet: Facet, language: Language
) -> Messages:
    """What a judge is asked about one candidate."""
    said, reply, whole = _SHOWN[language]
    if facet.sees == "last":
        shown = f"{said} {conversation[-1].content}"
    else:
        turns = (f"{one.role}: {one.content}" for one in conversation if one.role != "system")
        shown = "\n".join((whole, *turns))
    text = f"{shown}\n\n{reply} {candidate}\n\n{facet.question.spoken(language)}"
    return (Message("user", text),)


def verdict(reply: Reply, facet: Facet) -> str | None:
    """The label that a judge gives; None where it gives none."""
    return parse_label(reply.text, facet.labels)


def helpful(labels: Mapping[str, str | None], vote: VotingRule = "and") -> bool | None:
    """Whether a candidate is helpful by the label of each facet; None where that is not known.

    "and": every facet calls it helpful, and one that does not decides. "majority": more do than do
    not, of those that gave a label.
    """
    known = [labels.get(facet.name) != facet.unhelpful
             for facet in FACETS if labels.get(facet.name) is not None]  # fmt: skip
    if vote == "majority":
        return None if 2 * sum(known) == len(known) else 2 * sum(known) > len(known)
    if not all(known):
        return False
    return True if len(known) == len(FACETS) else None


def unhelpful_rate(found: Sequence[bool | None]) -> tuple[float, int]:
    """The share of unhelpful replies among those of which it is known, and how many are not."""
    known = [one for one in found if one is not None]
    rate = float(np.mean([not one for one in known])) if known else float("nan")
    return rate, len(found) - len(known)


def muffin(candidates: int = CANDIDATES, language: Language | None = None) -> Method:
    """The method `muffin`: candidates, their feedback, and the first that is helpful.

    Equal candidates are judged once. Where none is helpful the first is said, and it is told.
    """

    def steps(conversation: Messages) -> Steps:
        spoken = language or ("zh" if is_chinese_text(conversation) else "en")
        said = yield (conversation,) * candidates
        texts = list(dict.fromkeys(one.text.strip() for one in said if one.text.strip()))
        if not texts:
            return Outcome("", {}, "every candidate is empty")
        asked = [facet_call(conversation, one, facet, spoken) for one in texts for facet in FACETS]
        verdicts = iter((yield asked))
        feedback = [{facet.name: verdict(next(verdicts), facet) for facet in FACETS} for _ in texts]
        found = [helpful(one) for one in feedback]
        trace = {
            "candidates": texts,
            "feedback": feedback,
            "helpful": found,
            "unhelpful_rate": unhelpful_rate(found)[0],
        }
        if True in found:
            return Outcome(texts[found.index(True)], trace)
        return Outcome(texts[0], trace, "no candidate is known to be helpful")

    return steps

"""What empathy should look like in each context: a pattern of dimensions and style rules.

A pattern is the context's desired level, seven weights that sum to 1 (how much each SENSE-7
dimension counts there) and rules in words. The papers say that such patterns exist per context
and do not print them: weights, rules and limits are ours. A file may say it otherwise, and add
contexts (`hen_jax.data.patterns`).
"""

import dataclasses

from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.empathy.labels import Words

DIMENSIONS: dict[str, str] = {
    "Affective": "recognises and understands the user's feelings",
    "Cognitive": "understands the user's view, goals and intentions",
    "Response": "responds and adapts fittingly, and knows when to advise",
    "Prosocial": "shows concern and the wish to help",
    "Interest": "is curious about the user's experience",
    "Contextual": "uses the user's circumstances, history and beliefs",
    "Relational": "recalls and weaves in what was said before",
}
"""The seven SENSE-7 dimensions, by the column names of its workbook, in its order."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What of a pattern can be counted in a reply: at most so many; None: any number."""

    questions: int | None = None  # question marks
    sentences: int | None = None
    formulas: int | None = None  # phrases of `empathy.formulas`


@dataclasses.dataclass(frozen=True)
class Pattern:
    """How to be empathetic in one context."""

    context: str
    level: float  # desired empathy in [0, 1]
    weights: dict[str, float]  # per dimension, sums to 1
    rules: tuple[Words, ...]
    limits: Limits = Limits()


def _weights(*values: float) -> dict[str, float]:
    return dict(zip(DIMENSIONS, values, strict=True))


PATTERNS: dict[str, Pattern] = {
    "distress": Pattern(
        context="distress",
        level=CONTEXTS["distress"].level,
        limits=Limits(questions=1, sentences=8, formulas=0),
        weights=_weights(0.25, 0.15, 0.15, 0.10, 0.10, 0.10, 0.15),
        rules=(
            Words("Stay with the feeling before anything else.", "先陪着情绪，别急着往前走。"),
            Words("Take up the small things they mention.", "接住对方提到的小事。"),
            Words("Advise only when asked.", "对方问了再给建议。"),
            Words("Leave room; at most one question.", "留出余地，最多问一句。"),
        ),
    ),
    "career": Pattern(
        context="career",
        level=CONTEXTS["career"].level,
        limits=Limits(questions=2, sentences=10, formulas=0),
        weights=_weights(0.10, 0.25, 0.20, 0.10, 0.10, 0.15, 0.10),
        rules=(
            Words("Say in one sentence why it matters to them.", "用一句话说出这事为何要紧。"),
            Words("Then help weigh the next step.", "再一起掂量下一步。"),
            Words("Keep to their own aims and limits.", "顺着对方自己的目标和难处。"),
        ),
    ),
    "learning": Pattern(
        context="learning",
        level=CONTEXTS["learning"].level,
        limits=Limits(questions=2, sentences=12, formulas=0),
        weights=_weights(0.10, 0.25, 0.30, 0.05, 0.15, 0.05, 0.10),
        rules=(
            Words("Take the error as a sensible try.", "把错误当作合理的尝试。"),
            Words("Explain with what they already know.", "用对方熟悉的东西讲解。"),
            Words("Hand the next step back to them.", "把下一步交回给对方。"),
        ),
    ),
    "writing": Pattern(
        context="writing",
        level=CONTEXTS["writing"].level,
        limits=Limits(questions=2, formulas=0),
        weights=_weights(0.05, 0.30, 0.40, 0.05, 0.05, 0.10, 0.05),
        rules=(
            Words("Deliver the work first.", "先把活儿交出来。"),
            Words("Half a sentence of kindness at most.", "体贴的话最多半句。"),
            Words("Ask only what the work needs.", "只问活儿需要的。"),
        ),
    ),
}
"""One pattern per context, in the order of `CONTEXTS`."""

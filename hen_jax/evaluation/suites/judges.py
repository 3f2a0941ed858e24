"""What the judge and the reward model themselves can tell: their accuracy on crossed pairs.

A measure that is at chance on a kind says nothing about that dimension of any arm. A reply is
scored at both prompts, alone each time; equal scores are a tie, which counts half.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hen_jax.data.crossed import Crossing
from hen_jax.empathy.labels import Language
from hen_jax.evaluation.figures import Drawing, measured
from hen_jax.evaluation.judge_prompts import judge_prompt
from hen_jax.evaluation.rubrics import load_rubric
from hen_jax.evaluation.suite import Judge, Measured, NotMeasuredError, Suite, SuiteContext, Turns
from hen_jax.evaluation.suites.crossed import crossed_accuracies, shipped_crossings
from hen_jax.evaluation.suites.empathy import RUBRIC
from hen_jax.evaluation.verdicts import parse_score
from hen_jax.text.conversation import Conversation, Message

_MOST = 10
"""Items of each kind that a judge is asked about, four questions each, without a limit given."""

_Said = tuple[Crossing, Turns, str]


def crossed_margins(scores: np.ndarray) -> list[dict[str, list[float]]]:
    """How far ahead the right reply is; `scores` `[n, 2, 2]` of reply `j` at prompt `i`."""
    ahead = np.stack([scores[:, 0, 0] - scores[:, 0, 1], scores[:, 1, 1] - scores[:, 1, 0]], axis=1)
    return [{"at_prompt": one.tolist(), "interaction": [float(one.sum())]} for one in ahead]


def _said(crossings: Sequence[Crossing]) -> list[_Said]:
    return [
        (one, prompt, reply) for one in crossings for prompt in one.prompts for reply in one.replies
    ]


def judge_scores(judge: Judge, said: Sequence[_Said], rubric: str) -> np.ndarray:
    """`[n]`: the judge's score of each reply, NaN where its verdict cannot be read."""
    languages: list[Language] = [one.language for one, _, _ in said]
    rubrics = {language: load_rubric(rubric, language) for language in dict.fromkeys(languages)}
    asked = [judge_prompt("pointwise", rubrics[one.language], prompt, [reply])
             for one, prompt, reply in said]  # fmt: skip
    found = []
    for (one, _, _), reply in zip(said, judge.ask(asked), strict=True):
        verdict, failure = parse_score(reply, rubrics[one.language].low, rubrics[one.language].high)
        found.append(np.nan if failure is not None else float(verdict.score))
    return np.asarray(found)


def _lines(
    name: str, crossings: Sequence[Crossing], scores: np.ndarray, seed: int
) -> Iterator[Measured]:
    found = crossed_margins(scores.reshape(-1, 2, 2))
    for one in crossed_accuracies(crossings, found, judge=name):
        yield measured("", name, one, Drawing(seed))


def _run(context: SuiteContext) -> Iterable[Measured]:
    if context.judge is None and context.reward is None:
        raise NotMeasuredError("give --judge or --reward")
    if context.arm != context.first:
        return  # nothing here is about the arm
    if context.reward is not None:
        crossings = shipped_crossings(context.languages, context.limit)
        said = _said(crossings)
        spoken = [Conversation((*prompt, Message("assistant", reply))) for _, prompt, reply in said]
        yield from _lines(
            context.reward.name, crossings, context.reward.score(spoken), context.seed
        )
    if context.judge is not None:
        crossings = shipped_crossings(context.languages, context.limit or _MOST)
        rubric = context.options.get(RUBRIC, "high_context")
        scores = judge_scores(context.judge, _said(crossings), rubric)
        yield from _lines(context.judge.name, crossings, scores, context.seed)


SUITE = Suite(
    _run,
    "what the judge and the reward model tell themselves, on crossed pairs",
    options=(RUBRIC,),
)

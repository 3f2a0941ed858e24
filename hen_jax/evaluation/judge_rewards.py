"""A judge as a reward: one reply at a time by its score, or a group by its order; in [0, 1]."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from hen_jax.data.judged import Judged
from hen_jax.evaluation.judge_prompts import judge_prompt, with_nonce
from hen_jax.evaluation.judge_questions import Answer, Question, parsed, questions_of, worth
from hen_jax.evaluation.rewards import Answered, Reward
from hen_jax.evaluation.rubrics import Rubric
from hen_jax.text.conversation import Chat

JudgeMode = Literal["pointwise", "groupwise"]


def judged(chat: Chat, rubric_of: Callable[[Mapping[str, str]], Rubric], mode: JudgeMode) -> Reward:
    """What the judge `chat` says of each reply by the rubric of its record.

    Pointwise it is `(score - low) / (high - low)`. Groupwise all replies to a prompt are shown at
    once, shuffled and then backwards, and a reply gets the mean of its places: 1 for the best, 0
    for the last. One whose verdict cannot be read gets NaN. Nonces come from the system's
    randomness: a policy cannot learn to write them.
    """

    def reward(answered: Sequence[Answered]) -> list[float]:
        items, rubrics = _items(answered), {}
        for one in answered:
            rubrics.setdefault(str(one.group), rubric_of(one.record))
        questions = questions_of(items, mode, 1, 0)
        asked = [_prompt(question, rubrics[question.item.id], mode) for question in questions]
        replies = chat([with_nonce(text, None, "") for text in asked])
        said: dict[tuple[str, str], list[float]] = {}
        for question, reply in zip(questions, replies, strict=True):
            rubric = rubrics[question.item.id]
            answer = Answer(question, reply, parsed(question, reply, mode, rubric, False))
            for player, value in worth(answer, mode).items():
                shown = value if mode == "groupwise" else _share(value, rubric)
                said.setdefault((question.item.id, player), []).append(shown)
        names = [(str(one.group), str(at)) for at, one in enumerate(answered)]
        return [float(np.mean(said[name])) if name in said else math.nan for name in names]

    return reward


def _items(answered: Sequence[Answered]) -> list[Judged]:
    """A prompt with its group of replies, whose writers are named by their places."""
    replies: dict[int, dict[str, str]] = {}
    prompts = {}
    for at, one in enumerate(answered):
        replies.setdefault(one.group, {})[str(at)] = one.reply
        before = one.conversation[: len(one.prompt) + max(len(one.turns) - 1, 0)]
        prompts.setdefault(one.group, before)
    return [
        Judged(str(group), str(group), prompts[group], texts) for group, texts in replies.items()
    ]


def _prompt(question: Question, rubric: Rubric, mode: JudgeMode) -> str:
    texts = [question.item.replies[player] for player in question.shown]
    return judge_prompt(mode, rubric, question.item.prompt, texts)


def _share(score: float, rubric: Rubric) -> float:
    return (score - rubric.low) / (rubric.high - rubric.low)

"""The held-out pairs of a reward model, with what rankers say of them that understand nothing."""

import numpy as np

from hen_jax.data.crossed import is_crossed
from hen_jax.data.cues import cue_margins
from hen_jax.data.preferences import Pair
from hen_jax.data.splits import part_number
from hen_jax.data.word_ranker import word_margins
from hen_jax.evaluation.preference_report import Held, TaskScores
from hen_jax.runs.compared import ComparedPart, ComparedParts


def pair_scores(part: ComparedPart, scores: np.ndarray) -> np.ndarray:
    """`[n, 2]` of chosen and rejected from `[rows, K]`, in the order of `part.pairs()`."""
    return np.asarray(
        [
            (scores[row, judged.chosen], scores[row, judged.rejected])
            for row, one in enumerate(part.found.all())
            for judged in one.judged
        ]
    )


def task_scores(part: ComparedPart, scores: np.ndarray) -> TaskScores:
    """Every reply once, under the task of its prompt."""
    rows = part.found.all()
    return TaskScores(
        np.concatenate([scores[at, : len(one.documents)] for at, one in enumerate(rows)]),
        [part.tasks[one.id] for one in rows for _ in one.documents],
    )


def held_pairs(parts: ComparedParts) -> Held:
    """The pairs that a reward model is held to, and what length, cues and words say of them."""
    train, pairs = parts.train.pairs(), parts.valid.pairs()
    length, cues = cue_margins(train, pairs)
    return Held(
        shares=np.asarray([pair.wins for pair in pairs]),
        kinds=[pair.kind for pair in pairs],
        groups=[pair.group for pair in pairs],
        flipped=np.asarray([part_number(pair.id, 2, "order") == 1 for pair in pairs]),
        lengths=np.asarray(
            [(_length(pair, "chosen"), _length(pair, "rejected")) for pair in pairs]
        ),
        crossed=is_crossed,
        controls={
            "length": length,
            "cues": cues,
            "bag_of_words": word_margins(train, pairs),
        },
    )


def _length(pair: Pair, side: str) -> int:
    said = {"chosen": pair.chosen, "rejected": pair.rejected}[side]
    return max(sum(len(message.content) for message in said if message.role == "assistant"), 1)

"""Rewards that bring more than a rule: reward models, judges, identifiers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.mesh import rows_over
from hen_jax.core.shapes import read_object
from hen_jax.core.types import RowLimits
from hen_jax.data.comparisons import unshifted
from hen_jax.data.packing import lay_out_row, stack_rows
from hen_jax.empathy.labels import LANGUAGES
from hen_jax.evaluation.calibration import CALIBRATION, calibration_of
from hen_jax.evaluation.judge_rewards import judged
from hen_jax.evaluation.rewards import (
    Answered,
    Reward,
    calibrated,
)
from hen_jax.evaluation.rubrics import Rubric, load_rubric
from hen_jax.methods.epitome import identify_with, level_reward
from hen_jax.methods.identifier_training import load_identifier
from hen_jax.recipes.policy_reward_source import Circumstance, RewardSource
from hen_jax.runs.chats import Answering, open_chat
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.scored import compiled_scores, open_reward
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation
from hen_jax.training.placement import to_devices


def reward_model(source: RewardSource, around: Circumstance) -> Reward:
    """A reward model of ours, calibrated per task by what was measured when it was trained.

    Raises:
      InputError: no such model, or no calibration.
    """
    if source.path is None:
        raise InputError(f"reward {source.called!r} is a model; give its folder as path")
    folder = Path(source.path)
    adapter = None if source.adapter is None else Path(source.adapter)
    model, tokenizer = open_reward(folder, adapter), known_tokenizer(folder)
    row = min(around.longest, model.opened.config.max_length)
    run = compiled_scores(model, 1, RowLimits(row, 0, 1))
    size, put = 8 * rows_over(model.mesh), to_devices(model.mesh)

    def score(answered: Sequence[Answered]) -> list[float]:
        asked = [Conversation(one.conversation) for one in answered]
        documents = [rendered.tokens for rendered in render_all(asked, tokenizer)]
        found = np.full(len(documents), np.nan, np.float32)
        fitting = [at for at, tokens in enumerate(documents) if len(tokens) <= row]
        for start in range(0, len(fitting), size):
            places = fitting[start : start + size]
            laid = [lay_out_row([unshifted(documents[at])], row) for at in places]
            laid += [lay_out_row([], row)] * (size - len(places))
            scores = np.asarray(
                jax.device_get(run(model.params, model.frozen, put(stack_rows(laid))))
            )
            found[places] = scores[: len(places), 0, 0]  # of one document, its one score
        return found.tolist()

    return calibrated(score, calibration_of(_report(source)), reward_task)


def judge_reward(source: RewardSource, around: Circumstance) -> Reward:
    """A language model that judges, by a rubric in the record's language.

    Raises:
      InputError: no judge is named, or no such rubric.
    """
    if source.judge is None:
        raise InputError(f"reward {source.called!r} is a judge; say which one: judge=model:FOLDER")
    rubrics = {language: load_rubric(source.rubric, language) for language in LANGUAGES}

    def rubric_of(record: Mapping[str, str]) -> Rubric:
        return rubrics["zh" if record.get("language") == "zh" else "en"]

    return judged(open_chat(source.judge, Answering(max_new_tokens=64)), rubric_of, source.mode)


def reward_task(record: Mapping[str, str]) -> str:
    """The task under whose calibration a record's replies fall."""
    return record.get("task", record.get("crossing", ""))


def _report(source: RewardSource) -> Mapping[str, Any]:
    if source.calibration is not None:
        return read_object(Path(source.calibration), CALIBRATION)
    folder = Path(source.adapter or source.path or "")
    found = read_object(folder / RECORD, {"reward?": CALIBRATION}).get("reward")
    if not found:
        raise InputError(
            f"reward {source.called!r}: {folder} says nothing of its calibration; give the "
            "reward.json of the run that trained it as calibration"
        )
    return found


def epitome_reward(source: RewardSource, around: Circumstance) -> Reward:
    """The product of the probabilities of the reference's EPITOME levels (EmpRL), by an identifier.

    Raises:
      InputError: no identifier is named, or it is one of other labels.
    """
    if source.path is None:
        raise InputError(f"reward {source.called!r}: give the folder of its identifier as path")
    return level_reward(identify_with(load_identifier(Path(source.path))))

"""The rewards that a config names: settings -> functions of replies.

Another kind is an entry in `REWARDS`; it is built once, before the first rollout.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD, read_json
from hen_jax.core.mesh import rows_over
from hen_jax.core.ranges import Count, Natural, check_ranges
from hen_jax.core.types import RowLimits
from hen_jax.data.comparisons import unshifted
from hen_jax.data.packing import lay_out_row, stack_rows
from hen_jax.empathy.labels import LANGUAGES
from hen_jax.evaluation import reply_rules
from hen_jax.evaluation.calibration import calibration_of
from hen_jax.evaluation.judge_rewards import JudgeMode, judged
from hen_jax.evaluation.rewards import (
    Answered,
    Plain,
    Reward,
    Term,
    calibrated,
    each,
)
from hen_jax.evaluation.rubrics import Rubric, load_rubric
from hen_jax.methods.epitome import identify_with, level_reward
from hen_jax.methods.identifier_training import load_identifier
from hen_jax.runs.chats import Answering, open_chat
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.scored import compiled_scores, open_reward
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation
from hen_jax.training.placement import to_devices


@dataclasses.dataclass(frozen=True)
class RewardSource:
    """One reward of a run; which fields count depends on its kind."""

    kind: str  # a name of `recipes.policy_rewards.REWARDS`
    name: str | None = None  # in the log; None: the kind
    weight: float = 1.0  # in the sum; negative ones punish
    held_out: bool = False  # a probe: asked at evaluations alone, never trained on
    low: Natural = 1  # length: letters at least
    high: Natural = 1000  # length: letters at most
    n: Count = 3  # repetition: words of what may not be said twice
    language: str | None = None  # language, formulas: "en" or "zh"; None: that of the record
    path: str | None = None  # model, epitome: its folder; function: FILE.py:NAME
    adapter: str | None = None  # model: the folder of its adapter
    calibration: str | None = None  # model: its reward.json; None: what its export says
    judge: str | None = None  # judge: who judges, as `model:FOLDER`, `endpoint:URL#MODEL`, ...
    mode: JudgeMode = "pointwise"  # judge: replies one by one, or a group by its order
    rubric: str = "high_context"  # judge: a shipped rubric's name, or a file

    def __post_init__(self):
        check_ranges(self)

    @property
    def called(self) -> str:
        """Its name in the log."""
        return self.name or self.kind


@dataclasses.dataclass(frozen=True)
class Circumstance:
    """What a reward may need to know of the run."""

    seconds: float  # that a plain reward may take for one reply; 0: any
    longest: int  # tokens of a prompt and its reply


_Build = Callable[[RewardSource, Circumstance], Reward]


def _plain(make: Callable[[RewardSource], Plain]) -> _Build:
    return lambda source, around: each(make(source), around.seconds)


def function_of(source: RewardSource) -> Plain:
    """The function that `path` names, as FILE.py:NAME: `(prompt, reply, record) -> float`.

    Raises:
      InputError: no such file or function.
    """
    file, _, name = (source.path or "").rpartition(":")
    if not file or not Path(file).is_file():
        raise InputError(
            f"reward {source.called!r}: path is {source.path!r}; give FILE.py:NAME of a function "
            "(prompt, reply, record) -> float"
        )
    spec = importlib.util.spec_from_file_location(f"reward_{source.called}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Any = vars(module).get(name)
    if found is None or not callable(found):
        raise InputError(f"reward {source.called!r}: {file} has no function {name!r}")
    return cast(Plain, found)


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
        return read_json(Path(source.calibration))
    folder = Path(source.adapter or source.path or "")
    found = read_json(folder / RECORD).get("reward")
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


REWARDS: dict[str, _Build] = {
    "length": _plain(lambda source: reply_rules.length_band(source.low, source.high)),
    "repetition": _plain(lambda source: reply_rules.no_repetition(source.n)),
    "language": _plain(lambda source: reply_rules.in_language(source.language)),
    "formulas": _plain(lambda source: reply_rules.no_formulas(source.language)),
    "function": _plain(function_of),
    "model": reward_model,
    "judge": judge_reward,
    "epitome": epitome_reward,
}
"""Kinds of rewards, by name."""


def check_rewards(sources: Sequence[RewardSource]) -> None:
    """Raises `InputError` for no reward at all, an unknown kind, or two of one name."""
    for source in sources:
        if source.kind not in REWARDS:
            raise InputError(f"config.rewards: kind {source.kind!r}; allowed: {', '.join(REWARDS)}")
    names = [source.called for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"config.rewards: two are called {name!r}; give them names")
    if all(source.held_out for source in sources):
        raise InputError("config.rewards has none to train on; give at least one not held_out")


def terms(sources: Sequence[RewardSource], around: Circumstance) -> tuple[Term, ...]:
    """The rewards, ready."""
    return tuple(
        Term(one.called, REWARDS[one.kind](one, around), one.weight, one.held_out)
        for one in sources
    )

"""What gives levels in [0, 1]: preference models, rating models, judges; opened for a context."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hen_jax.core.checksums import file_sha256, text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.records import read_record, shaped_record
from hen_jax.data.comparisons import alone as last_alone
from hen_jax.data.rated import replies_only
from hen_jax.evaluation.calibration import calibration_of
from hen_jax.evaluation.judge_rewards import judged
from hen_jax.evaluation.rewards import Answered
from hen_jax.evaluation.rubrics import load_rubric
from hen_jax.runs.chats import Answering, open_chat, revision
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.scored import open_reward, score_documents
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation, Message
from hen_jax.verbs.evaluate.experts_settings import CONTEXT, LevelMeasure

Give = Callable[[Sequence[tuple[Message, ...]]], np.ndarray]
"""A level in [0, 1] for the last reply of each conversation; NaN where there is none."""


def opened(measure: LevelMeasure, alone: bool, context: str) -> Give:
    """The measure of a context, or its control that reads replies alone.

    Raises:
      InputError: no such model, one of another kind, or one without a calibration.
    """
    if measure.kind == "judge":
        return _judge(measure, context)
    model, adapter = folders(measure, alone, context)
    reward, tokenizer = open_reward(model, adapter), known_tokenizer(model)
    config, level = reward.opened.config, _level(measure, adapter or model)
    if config.rates != (measure.kind == "rating"):
        is_ = "a rating model" if config.rates else "a preference model"
        raise InputError(f"measure {measure.name!r} is of kind {measure.kind!r}; {model} is {is_}")

    see = _seen(measure, alone, adapter or model)

    def give(asked: Sequence[tuple[Message, ...]]) -> np.ndarray:
        seen = list(map(see, asked))
        documents = [one.tokens for one in render_all(seen, tokenizer)]
        fits = [at for at, one in enumerate(documents) if len(one) <= config.max_length]
        found = np.full(len(documents), np.nan)
        found[fits] = score_documents(reward, [documents[at] for at in fits])
        return level(found)

    return give


def _seen(
    measure: LevelMeasure, alone: bool, folder: Path
) -> Callable[[tuple[Message, ...]], Conversation]:
    """What of a conversation a model is shown: as it was in its training.

    Raises:
      InputError: a control that was trained on prompts, or a measure that was not.
    """
    run = shaped_record(folder, {"run?": (None, {"config?": (None, dict)})}).get("run") or {}
    config = run.get("config") or {}
    reads = config.get("reads", "replies" if alone else "conversation")
    if (reads == "replies") != alone:
        what = "a control needs one of config.reads='replies'" if alone else "it is no measure"
        raise InputError(f"measure {measure.name!r}: {folder} was trained on its {reads}; {what}")
    if not alone:
        return Conversation
    if measure.kind == "preference" and config.get("level") == "turn":
        return lambda messages: last_alone(messages[-1:])
    return lambda messages: replies_only(Conversation(messages))


def folders(measure: LevelMeasure, alone: bool, context: str) -> tuple[Path, Path | None]:
    """The model and the adapter of a context."""
    given = (
        (measure.replies, measure.replies_adapter) if alone else (measure.model, measure.adapter)
    )
    model, adapter = (None if one is None else one.replace(CONTEXT, context) for one in given)
    assert model is not None
    for one in (model, adapter):
        if one is not None and not Path(one).is_dir():
            raise InputError(f"measure {measure.name!r}: no model at {one}")
    return Path(model), None if adapter is None else Path(adapter)


def _level(measure: LevelMeasure, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """From a model's outputs to levels: as they are, or by the calibration frozen with it."""
    if measure.kind == "rating":
        return lambda scores: scores
    report = (read_record(folder) or {}).get("reward")
    frozen = None if report is None else calibration_of(report, folder / RECORD)
    if frozen is None or frozen.temperature is None:
        raise InputError(
            f"measure {measure.name!r}: {folder} brings no calibration with a temperature; export "
            "a reward run that ended with its report"
        )
    return lambda scores: np.asarray([frozen.level(float(one)) for one in scores], float)


def _judge(measure: LevelMeasure, context: str) -> Give:
    rubric = load_rubric(measure.rubric.replace(CONTEXT, context))
    reward = judged(
        open_chat(measure.model, Answering(max_new_tokens=96)), lambda _: rubric, "pointwise"
    )

    def give(asked: Sequence[tuple[Message, ...]]) -> np.ndarray:
        answered = [
            Answered(one[:-1], one[-1].content, {"id": str(at)}, group=at)
            for at, one in enumerate(asked)
        ]
        return np.asarray(reward(answered), float)

    return give


def word_of(measure: LevelMeasure, alone: bool, context: str) -> str:
    """A word for what measures: another model or rubric has another one."""
    if measure.kind == "judge":
        rubric = str(load_rubric(measure.rubric.replace(CONTEXT, context)))
        return text_sha256(revision(measure.model) + measure.model + rubric)[:12]
    said = [
        file_sha256(one / RECORD) if (one / RECORD).is_file() else revision(f"model:{one}")
        for one in folders(measure, alone, context)
        if one is not None
    ]
    return text_sha256("+".join([*said, str(alone), measure.kind]))[:12]

"""`hen score`: what a reward model gives each reply of a data file, packed and in batches."""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.outputs import output_files, require_ours
from hen_jax.core.records import shaped_record
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.evaluation.calibration import CALIBRATION, Calibration, calibration_of
from hen_jax.runs.compared import task_of
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.scored import document_values, open_reward, reward_config
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation


@dataclasses.dataclass(frozen=True)
class Scoring:
    """One `hen score`; fields carry the names of its flags."""

    model: Path
    input: Path
    schema: str
    out: Path
    adapter: Path | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    batch_size: int = 8  # rows at a time, on each device
    dtype: Literal["float32", "bfloat16"] = "float32"


class Scored(NamedTuple):
    """What was written."""

    documents: int
    too_long: int  # have no score: longer than the model's positions
    tokens: int
    seconds: float


def score(scoring: Scoring) -> Scored:
    """Writes a line for each record of the input, in its order, all or nothing.

    Of a schema of pairs a line is `{"id", "kind", "chosen", "rejected"}`, else `{"id", "score"}`.
    The score of a rating model is its rating in [0, 1], and one of a head with an output for each
    dimension their mean, with these beside it under `dimensions` (of pairs, `chosen_dimensions`).
    A reward model that brings its calibration adds `share` to pairs, else `level` and `reward`: see
    `evaluation.calibration`. A document longer than the model has positions scores null, and is
    counted.

    Raises:
      InputError: no reward model, a bad record (file:line:field), or an output of somebody else.
    """
    if scoring.batch_size < 1:
        raise InputError(f"--batch-size is {scoring.batch_size}; give 1 or more")
    require_ours(scoring.out)
    reward_config(scoring.model, scoring.adapter)  # before anything long
    lines, conversations = _read(scoring)
    reward = open_reward(scoring.model, scoring.adapter, scoring.dtype)
    rendered = render_all(conversations, known_tokenizer(scoring.model))
    documents = [one.tokens for one in rendered]
    most, began = reward.opened.config.max_length, time.perf_counter()
    fitting = [at for at, tokens in enumerate(documents) if len(tokens) <= most]
    labels = reward.opened.config.score_labels
    found = np.full((len(documents), len(labels)), np.nan)
    found[fitting] = document_values(reward, [documents[at] for at in fitting], scoring.batch_size)
    values, frozen = iter(found), _calibration(scoring.adapter or scoring.model)
    with output_files(scoring.out) as (staged,), staged.open("w", encoding="utf-8") as file:
        for line in lines:
            row: dict[str, Any] = {}
            for key, value in line.items():
                row |= _cells(key, next(values), labels) if key in _SCORES else {key: value}
            file.write(json.dumps(_told(row, frozen), ensure_ascii=False) + "\n")
    seconds, tokens = time.perf_counter() - began, sum(len(documents[at]) for at in fitting)
    done = Scored(len(documents), len(documents) - len(fitting), tokens, seconds)
    print(
        f"{scoring.out}: {done.documents} documents of {done.tokens} tokens in {seconds:.1f} s, "
        f"compilation included; {done.too_long} longer than the model's {most} positions"
    )
    return done


_SCORES = ("score", "chosen", "rejected")


def _read(scoring: Scoring) -> tuple[list[dict[str, Any]], list[Conversation]]:
    """The lines to be written, with what is to be scored under the keys of `_SCORES`."""
    records = check_records(scoring.input, scoring.schema, scoring.columns).whole(scoring.input)
    lines = list(_lines(scoring.schema, records))
    return lines, [line[key] for line in lines for key in _SCORES if key in line]


def _lines(name: str, records: Iterable[Any]) -> Iterator[dict[str, Any]]:
    schema = schema_named(name)
    for record in records:
        if schema.pairs is None:
            one = schema.document(record)
            yield {"id": one.id, "task": task_of(name, record), "score": one.conversation}
            continue
        for pair in schema.pairs(record):
            chosen, rejected = pair.conversations()
            yield {"id": pair.id, "kind": pair.kind, "chosen": chosen, "rejected": rejected}


def _calibration(folder: Path) -> Calibration | None:
    """What the export in `folder` brings; None of a rating model, or where another tool made it."""
    report = shaped_record(folder, {"reward?": CALIBRATION}).get("reward")
    return None if report is None else calibration_of(report)


def _told(row: dict[str, Any], frozen: Calibration | None) -> dict[str, Any]:
    """The line as it is written: scores, and what the calibration makes of them."""
    task, scores = row.pop("task", None), [row[key] for key in _SCORES if key in row]
    if frozen is None or None in scores:
        return row
    if "score" not in row:
        return row | {"share": _rounded(frozen.share(*scores))}
    (score,) = scores
    return row | {
        "level": _rounded(frozen.level(score)),
        "reward": _rounded(frozen.reward(score, task)),
    }


def _cells(key: str, values: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """A score under its key, and what it is the mean of where there are several outputs."""
    cells: dict[str, Any] = {key: _number(float(values.mean()))}
    if len(labels) > 1:
        own = zip(labels, map(_number, values.tolist()), strict=True)
        cells["dimensions" if key == "score" else f"{key}_dimensions"] = dict(own)
    return cells


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

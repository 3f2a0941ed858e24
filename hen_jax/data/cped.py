"""CPED (Chen et al., 2022): Chinese television dialogues as high-context empathy records.

Each change of speaker gives one record: what the one said is the statement, what the other said
is the response, and the responder's Big Five, age, gender and the scene are its conditions. That
is the SPER task, with traits in place of an MBTI type; none is derived from the traits. The data
(Apache-2.0) does not come with hen_jax.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.hed import HedRecord
from hen_jax.data.records import Parsed, parse_records
from hen_jax.data.rows import Row
from hen_jax.empathy.traits import AGES, GENDERS, SCENES, TRAITS, Level
from hen_jax.text.conversation import Message
from hen_jax.text.prompts import Circumstances

EMOTION_OF: dict[str, str | None] = {
    "happy": "happy",
    "grateful": "happy",
    "positive-other": "happy",
    "relaxed": "neutral",
    "neutral": "neutral",
    "anger": "angry",
    "sadness": "sad",
    "depress": "sad",
    "fear": "afraid",
    "disgust": "disgusted",
    "astonished": "surprised",
    "worried": "worried",
    "negative-other": None,
}
"""CPED's thirteen labels in our eight; `negative-other` is none of them and gives no record."""

HISTORY = 6
"""Speaking turns before the statement that a record keeps."""

_UNKNOWN = "unknown"


class _Turn(NamedTuple):
    """What one speaker says until another does."""

    last: dict[str, str]  # the row of the last utterance
    said: str


def check_cped(path: str | Path) -> Parsed[HedRecord]:
    """The records of a CPED CSV file, and the problems of its rows.

    Left out without a problem: a reply by someone whose traits CPED does not know, and a statement
    that it labels `negative-other`.

    Raises:
      InputError: the file cannot be read at all.
    """
    rows = parse_records(path, _parse, lambda row: row["Utterance_ID"])
    records: list[HedRecord] = []
    for name, dialogue in itertools.groupby(rows.records, lambda row: row["Dialogue_ID"]):
        records += _records(name, list(_turns(dialogue)))
    return Parsed(records, rows.problems)


def _parse(row: Row) -> dict[str, str]:
    keys = ("Dialogue_ID", "Utterance_ID", "Speaker", "Utterance")
    labels = {
        "Gender": GENDERS,
        "Age": AGES,
        "Scene": SCENES,
        **{trait.capitalize(): levels for trait, levels in TRAITS.items()},
    }
    if "Emotion" not in row:
        raise InputError("Emotion: missing; this is no CPED file, or one of its rows is cut short")
    return {
        **{key: fields.text_field(row, key) for key in keys},
        **{
            key: fields.label_field(row, key, [*allowed, _UNKNOWN])
            for key, allowed in labels.items()
        },
        "Emotion": fields.label_field(row, "Emotion", EMOTION_OF),
    }


def _turns(dialogue: Iterable[dict[str, str]]) -> Iterator[_Turn]:
    for _, rows in itertools.groupby(dialogue, lambda row: row["Speaker"]):
        said = list(rows)
        yield _Turn(said[-1], "，".join(row["Utterance"].strip() for row in said))


def _records(name: str, turns: list[_Turn]) -> Iterator[HedRecord]:
    for at in range(1, len(turns)):
        statement, reply = turns[at - 1], turns[at]
        emotion = EMOTION_OF[statement.last["Emotion"]]
        traits = _traits(reply.last)
        if emotion is None or not traits:
            continue
        yield HedRecord(
            id=f"cped-{reply.last['Utterance_ID']}",
            statement_id=name,  # neighbouring records share turns, so a dialogue stays whole
            task="SPER",
            language="zh",
            emotion=emotion,
            role=None,
            personality=None,
            statement=statement.said,
            response=reply.said,
            history=_history(turns[max(0, at - 1 - HISTORY) : at - 1], reply.last["Speaker"]),
            circumstances=Circumstances(
                traits=traits,
                age=_known(reply.last["Age"]),
                gender=_known(reply.last["Gender"]),
                scene=_known(reply.last["Scene"]),
            ),
        )


def _history(turns: list[_Turn], responder: str) -> tuple[Message, ...]:
    """Earlier turns, the responder's own as the assistant's."""
    return tuple(
        Message("assistant" if turn.last["Speaker"] == responder else "user", turn.said)
        for turn in turns
    )


def _traits(row: dict[str, str]) -> tuple[tuple[str, Level], ...]:
    levels = {trait: _known(row[trait.capitalize()]) for trait in TRAITS}
    return tuple((trait, cast(Level, level)) for trait, level in levels.items() if level)


def _known(label: str) -> str | None:
    return None if label == _UNKNOWN else label

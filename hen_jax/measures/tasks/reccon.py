"""RECCON (Poria et al., 2021) from its official files: why somebody feels what they feel.

`original_annotation/*.json` (emotions with the turns and spans that caused them), `subtask1/` (span
extraction in SQuAD's form) and `subtask2/` (entailment in CSV). Built on DailyDialog and IEMOCAP:
none of it comes with hen_jax.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.data import fields
from hen_jax.data.rows import read_lines
from hen_jax.measures.choices import ChoiceItem
from hen_jax.measures.tasks.erc import mapped
from hen_jax.text.conversation import Message

BACKGROUND = "b"
"""In the evidence: the cause lies outside of the dialogue (our reading)."""

SEPARATOR = " <SEP> "
_IEMOCAP_ONLY = {"excited": "excited", "frustrated": "frustrated"}


@dataclasses.dataclass(frozen=True)
class CausedTurn:
    """A turn of a dialogue with its emotion and what caused it."""

    turn: int  # from 1
    speaker: str
    text: str
    emotion: str
    causes: tuple[int, ...] = ()  # turns; the own turn may be among them
    background: bool = False  # a cause outside of the dialogue
    spans: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()  # no-context, inter-personal, self-contagion, hybrid, latent


@dataclasses.dataclass(frozen=True)
class SpanQuestion:
    """A question of subtask 1; without an answer there is no cause in the context."""

    id: str
    context: str
    question: str
    answer: str

    @property
    def group(self) -> str:
        """The target utterance, whose questions belong together."""
        return self.id.partition("_impossible")[0].partition("_true")[0]


@dataclasses.dataclass(frozen=True)
class Entailment:
    """A line of subtask 2: does the candidate utterance cause the emotion of the target?"""

    id: str
    emotion: str
    target: str
    candidate: str
    context: str
    caused: bool


def read_annotation(path: Path) -> dict[str, list[CausedTurn]]:
    """The dialogues of an original file by their ids.

    Raises:
      InputError: another kind of file, no turn, or an emotion that is none.
    """
    found = read_json(path)
    try:
        dialogues = {
            name: [_turn(one) for part in parts for one in part] for name, parts in found.items()
        }
        if not any(dialogues.values()):
            raise InputError("no turn in this file")
        return dialogues
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise InputError(
            f"{path}: no annotation of RECCON ({type(error).__name__}: {error}); "
            "give a file of data/original_annotation"
        ) from None


def _turn(one: dict[str, Any]) -> CausedTurn:
    evidence = one.get("expanded emotion cause evidence", [])
    spans = one.get("expanded emotion cause span", one.get("expanded emotion cause spans", []))
    return CausedTurn(
        turn=int(one["turn"]),
        speaker=str(one["speaker"]),
        text=str(one["utterance"]),
        emotion=emotion_of(str(one["emotion"])),
        causes=tuple(at for at in evidence if isinstance(at, int)),
        background=BACKGROUND in evidence,
        spans=tuple(spans),
        kinds=tuple(one.get("type", ())),
    )


def emotion_of(said: str) -> str:
    """An emotion of the files under one name: `happines`, `happy` and `happiness` are one.

    Raises:
      InputError: no emotion of DailyDialog or IEMOCAP.
    """
    word = said.strip().lower()
    label = _IEMOCAP_ONLY.get(word) or mapped(word, "dailydialog")
    if label is None:
        raise InputError(f"emotion {said!r} is none that RECCON names")
    return "neutral" if label == "no emotion" else label


def read_spans(path: Path) -> list[SpanQuestion]:
    """The questions of subtask 1.

    Raises:
      InputError: another kind of file, or no question.
    """
    found = read_json(path)
    try:
        questions = [
            SpanQuestion(
                str(qa["id"]),
                str(part["context"]),
                str(qa["question"]),
                "" if qa["is_impossible"] else str(qa["answers"][0]["text"]),
            )
            for part in found
            for qa in part["qas"]
        ]
        if not questions:
            raise InputError("no question in this file")
        return questions
    except (KeyError, TypeError, IndexError, InputError) as error:
        raise InputError(
            f"{path}: no questions in SQuAD's form ({type(error).__name__}: {error}); "
            "give a file of data/subtask1"
        ) from None


def read_entailments(path: Path) -> list[Entailment]:
    """The lines of subtask 2.

    Raises:
      InputError: a line that is none (`file:line: what`).
    """
    found = list(_entailments(path))
    if not found:
        raise InputError(f"{path}: no line in this file")
    return found


def _entailments(path: Path) -> Iterator[Entailment]:
    for line, row, _, fault in read_lines(path):
        try:
            if row is None:
                raise InputError(fault)
            parts = [one.strip() for one in fields.text_field(row, "text").split(SEPARATOR.strip())]
            if len(parts) not in (3, 4):
                raise InputError(f"text: {len(parts)} parts; allowed: 3 or 4 with <SEP> between")
            caused = fields.truth_field(row, "labels")
            context = parts[3] if len(parts) == 4 else ""
            name = fields.name_field(row, "id")
            yield Entailment(name, parts[0], parts[1], parts[2], context, caused)
        except InputError as error:
            raise InputError(f"{path}:{line}:{error}") from None


def cause_items(entailments: Sequence[Entailment]) -> list[ChoiceItem]:
    """A yes/no question for each line; items of one target utterance are one group."""
    return [
        ChoiceItem(
            id=one.id,
            group=one.id.partition("_impossible")[0].partition("_true")[0],
            aspect="cause",
            messages=(Message("user", _asked(one)),),
            options=("no", "yes"),
            answer=int(one.caused),
        )
        for one in entailments
    ]


def _asked(one: Entailment) -> str:
    context = f"Earlier: {one.context}\n" if one.context else ""
    return (
        f"{context}Somebody says with the feeling {one.emotion}: {one.target}\n"
        f"Is this the reason for the feeling: {one.candidate}\nAnswer yes or no."
    )


def span_prompt(one: SpanQuestion) -> tuple[Message, ...]:
    """A question of subtask 1 as a chat is asked it."""
    text = (
        f"{one.context}\n\n{one.question}\nQuote the words of the text above that answer this, "
        'exactly as they stand and nothing else. If it has none, answer "none".'
    )
    return (Message("user", text),)


def spans_spread(questions: Sequence[SpanQuestion], limit: int) -> list[SpanQuestion]:
    """At most `limit` from all over the file; 0: all."""
    count = min(limit or len(questions), len(questions))
    return [questions[at * len(questions) // count] for at in range(count)]


def annotated_causes(dialogues: Mapping[str, Sequence[CausedTurn]]) -> list[ChoiceItem]:
    """A yes/no question for each turn with an emotion and each turn up to it; the aspect tells how
    many turns back the candidate stands: `own turn`, `1 back`, `2-3 back`, `4+ back`."""
    found = []
    for name, turns in dialogues.items():
        for target in (one for one in turns if one.emotion != "neutral"):
            before = [one for one in turns if one.turn <= target.turn]
            shown = " ".join(f"{one.speaker}: {one.text}" for one in before)
            for candidate in before:
                key = f"{name}/{target.turn}"
                texts = f"{target.speaker}: {target.text}", f"{candidate.speaker}: {candidate.text}"
                caused = candidate.turn in target.causes
                asked = Entailment(f"{key}/{candidate.turn}", target.emotion, *texts, shown, caused)
                [item] = cause_items([asked])
                back = _back(target.turn - candidate.turn)
                found.append(dataclasses.replace(item, group=key, aspect=back))
    return found


def _back(turns: int) -> str:
    return "own turn" if not turns else "1 back" if turns == 1 else (
        "2-3 back" if turns < 4 else "4+ back")  # fmt: skip

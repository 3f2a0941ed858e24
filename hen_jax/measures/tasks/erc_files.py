"""The official files of the four sets for emotion recognition in conversation, as utterances.

MELD and EmoryNLP as CSV (also EmoryNLP's JSON), IEMOCAP as rows of one's own (its licence is
signed; give `dialogue, speaker, text, emotion`), DailyDialog as its two text files side by side.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.data import fields
from hen_jax.data.rows import Row, read_lines, text_lines
from hen_jax.measures.tasks.erc import Utterance, mapped, named_set

END = "__eou__"
"""What DailyDialog writes after each utterance."""


def read_erc(path: Path, name: str) -> list[Utterance]:
    """The utterances of an official file, dialogue by dialogue.

    Raises:
      InputError: no such set, another kind of file, or a label that the set does not have
        (`file:line: what`).
    """
    named_set(name)
    if name == "dailydialog" and path.suffix in (".txt", ""):
        return list(_daily_dialog(path))
    if name == "emorynlp" and path.suffix == ".json":
        return list(_emory_json(path))
    read = _ROWS[name]
    found = []
    for line, row, _, fault in read_lines(path):
        try:
            if row is None:
                raise InputError(fault)
            found.append(_labelled(read(row), name))
        except InputError as error:
            raise InputError(f"{path}:{line}:{error}") from None
    if not found:
        raise InputError(f"{path}: no utterance in this file")
    return _together(found)


def _labelled(one: Utterance, name: str) -> Utterance:
    label = mapped(one.emotion, name)
    if label is None:
        allowed = ", ".join(named_set(name).labels)
        raise InputError(f"emotion: {one.emotion!r} is no label of {name}; allowed: {allowed}")
    return Utterance(one.dialogue, one.speaker, one.text, label)


def _together(found: list[Utterance]) -> list[Utterance]:
    """Dialogue by dialogue, in the order in which each begins."""
    by: dict[str, list[Utterance]] = {}
    for one in found:
        by.setdefault(one.dialogue, []).append(one)
    return [one for dialogue in by.values() for one in dialogue]


def _meld(row: Row) -> Utterance:
    return Utterance(
        fields.name_field(row, "Dialogue_ID"),
        fields.text_field(row, "Speaker"),
        fields.text_field(row, "Utterance"),
        fields.text_field(row, "Emotion"),
    )


def _emory(row: Row) -> Utterance:
    parts = [fields.name_field(row, key) for key in ("Season", "Episode", "Scene_ID")]
    speaker = fields.text_field(row, "Speaker").strip("[]'\" ")
    text = fields.text_field(row, "Utterance")
    return Utterance("_".join(parts), speaker, text, fields.text_field(row, "Emotion"))


def _own(row: Row) -> Utterance:
    return Utterance(
        fields.name_field(row, "dialogue"),
        fields.name_field(row, "speaker"),
        fields.text_field(row, "text"),
        fields.text_field(row, "emotion"),
    )


_ROWS: Mapping[str, Callable[[Row], Utterance]] = {
    "meld": _meld,
    "emorynlp": _emory,
    "iemocap": _own,
    "dailydialog": _own,
}


def _emory_json(path: Path) -> Iterator[Utterance]:
    found = read_json(path)
    try:
        for episode in found["episodes"]:
            for scene in episode["scenes"]:
                for one in scene["utterances"]:
                    name, said = ", ".join(one["speakers"]), one["transcript"]
                    scene_id = one["utterance_id"].rpartition("_")[0]
                    yield _labelled(Utterance(scene_id, name, said, one["emotion"]), "emorynlp")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: no EmoryNLP file ({type(error).__name__}: {error}); "
            "give one with episodes, scenes and utterances"
        ) from None


def _daily_dialog(path: Path) -> Iterator[Utterance]:
    """`dialogues_*.txt` with `dialogues_emotion_*.txt` beside it; speakers take turns."""
    beside = path.with_name(path.name.replace("dialogues_", "dialogues_emotion_", 1))
    if not beside.is_file() or beside == path:
        raise InputError(f"{path}: its labels are not beside it; give {beside.name}, too")
    labels = named_set("dailydialog").labels
    dialogues, labelled = list(text_lines(path)), list(text_lines(beside))
    if len(dialogues) != len(labelled):
        raise InputError(
            f"{path}: {len(dialogues)} dialogues, but {len(labelled)} lines in {beside.name}; "
            "give both files whole, a line for each dialogue"
        )
    for (line, said), (_, numbers) in zip(dialogues, labelled, strict=True):
        turns = [turn.strip() for turn in said.split(END) if turn.strip()]
        marks = numbers.split()
        if len(turns) != len(marks) or not set(marks) <= set("0123456"):
            raise InputError(
                f"{path}:{line}: {len(turns)} utterances and {len(marks)} labels from 0 to 6; "
                f"mend it, or leave the line out of both files"
            )
        for at, (turn, mark) in enumerate(zip(turns, marks, strict=True)):
            yield Utterance(str(line), "AB"[at % 2], turn, labels[int(mark)])

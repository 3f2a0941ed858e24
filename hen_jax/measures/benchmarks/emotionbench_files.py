"""EmotionBench's official files: questionnaires, situations, and the CSV of a run's results.

A column of the CSV is a filling: `General_test-0_order-0` by default, and
`Anger-0_scenario-3_test-1_order-2` after a situation; `order-2` holds the question numbers in the
order in which that filling was asked. Its first row is the prompt.
"""

import csv
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.measures.benchmarks.emotionbench import Administration, Questionnaire, Situation
from hen_jax.text.conversation import Chat, Message

_COLUMN = re.compile(r"(?P<key>\w+(?:-\d+)?)(?:_scenario-\d+)?_test-\d+_(?P<order>order-\d+)")
_NUMBER = re.compile(r"^\D*(\d+)(?!\d)\s*[.:、)：]?[^\d]*?(\d+)\D*$")


def read_questionnaires(path: Path) -> dict[str, Questionnaire]:
    """The scales of the official file by name.

    Raises:
      InputError: another kind of file.
    """
    found = read_json(path)
    try:
        return {str(one["name"]): _questionnaire(one) for one in found}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: no questionnaires of EmotionBench ({type(error).__name__}: {error}); give "
            "its questionnaires.json"
        ) from None


def _questionnaire(one: Mapping[str, Any]) -> Questionnaire:
    if one["compute_mode"] not in ("SUM", "SUM*2", "AVG"):
        raise ValueError(f"compute_mode {one['compute_mode']!r}")
    return Questionnaire(
        name=str(one["name"]),
        questions={int(number): str(text) for number, text in one["questions"].items()},
        prompt=str(one["prompt"]),
        system=str(one["inner_setting"]),
        scale=int(one["scale"]),
        reverse=frozenset(map(int, one["reverse"])),
        mode=one["compute_mode"],
        categories={
            str(part["cat_name"]): tuple(map(int, part["cat_questions"]))
            for part in one["categories"]
        },
    )


def read_situations(path: Path) -> list[Situation]:
    """The situations of the official file.

    Raises:
      InputError: another kind of file.
    """
    found = read_json(path)
    try:
        return [
            Situation(str(emotion["name"]), str(factor["name"]), str(text))
            for emotion in found["emotions"]
            for factor in emotion["factors"]
            for text in factor["scenarios"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no situations of EmotionBench ({type(error).__name__}: {error}); give its "
            "situations.json"
        ) from None


def read_results(path: Path) -> list[Administration]:
    """The fillings of a result file; a cell that is empty or no number is an answer not given.

    Raises:
      InputError: another kind of file, or an order that is no list of question numbers.
    """
    columns = _columns(path)
    found = []
    for name, cells in columns.items():
        column = _COLUMN.fullmatch(name)
        if column is None or column["order"] not in columns:
            continue
        order = _order(columns[column["order"]], f"{path}: {column['order']}")
        answers = {
            number: _whole(cell)
            for number, cell in zip(order, cells, strict=True)
            if number is not None
        }
        found.append(Administration(column["key"], answers))
    if not found:
        raise InputError(
            f"{path}: no column such as General_test-0_order-0; give a testing CSV of EmotionBench"
        )
    return found


def _columns(path: Path) -> dict[str, list[str]]:
    """The cells of each column below the prompt; "" where a row is too short to have one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV in UTF-8 ({error}); save it as UTF-8") from None
    return {
        name: [row[at] if at < len(row) else "" for row in rows[1:]]
        for at, name in enumerate(header)
    }


def _order(cells: Sequence[str], place: str) -> list[int | None]:
    """Question numbers in the order asked; None where the column is empty."""
    for cell in cells:
        if cell.strip() and _whole(cell) is None:
            raise InputError(f"{place}: {cell[:40]!r}; allowed: the number of a question")
    return [_whole(cell) for cell in cells]


def _whole(cell: str) -> int | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def question_for(scale: Questionnaire, order: Sequence[int], situation: str = "") -> list[Message]:
    """A filling as a chat is asked it: the file's own prompt with the statements in that order."""
    imagine = (
        f'Imagine you are the protagonist in the situation: "{situation}"' if situation else ""
    )
    lines = [f"{at}. {scale.questions[number]}" for at, number in enumerate(order, start=1)]
    text = "\n".join([scale.prompt.replace("SCENARIO", imagine).replace("  ", " "), *lines])
    return [Message("system", scale.system), Message("user", text)]


def read_filling(scale: Questionnaire, order: Sequence[int], reply: str) -> dict[int, int | None]:
    """The answers in a reply: its numbers in order, or lines such as `3. Excited: 4`.

    Where there are not as many as questions, none is taken: a gap cannot be placed.
    """
    low, high = scale.bounds
    lines = [found for line in reply.splitlines() if (found := _NUMBER.match(line))]
    if len(lines) == len(order):
        given = [int(found[2]) for found in lines]
    else:
        given = [int(number) for number in re.findall(r"\d+", reply)]
    if len(given) != len(order):
        return dict.fromkeys(order, None)
    return {
        number: answer if low <= answer <= high else None
        for number, answer in zip(order, given, strict=True)
    }


def administer_situations(
    scale: Questionnaire,
    situations: Sequence[tuple[str, str]],
    chat: Chat,
    *,
    defaults: int = 10,
    repeats: int = 1,
    seed: int = 0,
) -> list[Administration]:
    """Asks a chat for `defaults` fillings, and `repeats` after each situation `(key, text)`.

    Every filling has an order of its own.
    """
    draw, asked = random.Random(seed), []
    plan = [("General", "")] * defaults + [one for one in situations for _ in range(repeats)]
    for key, text in plan:
        order = list(scale.questions)
        draw.shuffle(order)
        asked.append((key, order, question_for(scale, order, text)))
    replies = chat([messages for _, _, messages in asked])
    return [
        Administration(key, read_filling(scale, order, reply.text))
        for (key, order, _), reply in zip(asked, replies, strict=True)
    ]


def situation_keys(situations: Sequence[Situation]) -> list[tuple[str, str]]:
    """Keys as the result files have them, `Anger-0` for its first factor, with the texts."""
    factors: dict[str, list[str]] = {}
    found = []
    for one in situations:
        own = factors.setdefault(one.emotion, [])
        if one.factor not in own:
            own.append(one.factor)
        found.append((f"{one.emotion}-{own.index(one.factor)}", one.text))
    return found

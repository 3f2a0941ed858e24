"""EmoBench (ACL 2024, MIT): emotional understanding and application, in English and Chinese.

The 400 items are not with hen_jax: pass `emobench_eu.jsonl` (which emotion, and why) and
`emobench_ea.jsonl` (what to do or say), for evaluation only. The two questions of an item of
understanding are a group: as published, it is right where both are.
"""

from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.rows import Row, read_lines
from hen_jax.empathy.labels import LANGUAGES, Language
from hen_jax.measures.choices import ChoiceItem
from hen_jax.text.conversation import Message

_ASKED = {
    ("en", "emotion"): "What would {subject} feel in the end?",
    ("en", "cause"): "Why would {subject} feel so?",
    ("en", "action"): "What is the best thing that {subject} could do or say here?",
    ("zh", "emotion"): "最后，{subject}会有什么感受？",
    ("zh", "cause"): "{subject}为什么会有这样的感受？",
    ("zh", "action"): "这时{subject}怎么做或怎么说最好？",
}


def read_emobench(path: Path) -> list[ChoiceItem]:
    """The questions of either file; of understanding two for each item, in one group.

    Raises:
      InputError: a line that is none (`file:line: what`), or no line.
    """
    found: list[ChoiceItem] = []
    for line, row, _, fault in read_lines(path):
        try:
            if row is None:
                raise InputError(fault)
            found += _items(row)
        except InputError as error:
            raise InputError(f"{path}:{line}:{error}") from None
    if not found:
        raise InputError(f"{path}: no item in this file")
    return found


def _items(row: Row) -> list[ChoiceItem]:
    name, language = fields.name_field(row, "qid"), fields.label_field(row, "language", LANGUAGES)
    if "choices" in row:
        return [_item(row, f"ea-{language}-{name}", "action", "choices", "label")]
    group = f"eu-{language}-{name}"
    return [
        _item(row, group, kind, f"{kind}_choices", f"{kind}_label") for kind in ("emotion", "cause")
    ]


def _item(row: Row, group: str, kind: str, choices: str, label: str) -> ChoiceItem:
    language: Language = "zh" if row["language"] == "zh" else "en"
    options = row.get(choices)
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        raise InputError(f"{choices}: allowed: a list of texts")
    right = fields.text_field(row, label)
    if right not in options:
        raise InputError(f"{label}: {right[:40]!r} is none of the {choices}")
    asked = _ASKED[language, kind].format(subject=fields.text_field(row, "subject"))
    text = f"{fields.text_field(row, 'scenario')}\n\n{asked}"
    unlike = tuple(dict.fromkeys(options))  # two items repeat a wrong option
    return ChoiceItem(
        id=f"{group}/{kind}",
        group=group,
        aspect=kind,
        messages=(Message("user", text),),
        options=unlike,
        answer=unlike.index(right),
        language=language,
    )

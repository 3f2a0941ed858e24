"""Texts with a label, such as a sentiment: what a model is to tell from their words.

A row is `{"text": TEXT, "label": WORD}`, and if known `id`, `lang` and `group`. The labels are
those that stand in the file, in the order in which they come.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from hen_jax.core.errors import InputError
from hen_jax.data import fields, samples
from hen_jax.data.records import parse_records
from hen_jax.data.rows import Row
from hen_jax.empathy.labels import LANGUAGES, Language

MOST_LABELS = 100


class Labelling(NamedTuple):
    """A text and what it is called."""

    id: str
    group: str  # what intervals resample
    text: str
    label: str
    language: Language


class LabelledSet(NamedTuple):
    """The texts of a file, and all labels that stand there."""

    name: str
    texts: list[Labelling]
    labels: tuple[str, ...]


def read_labelled(path: Path) -> LabelledSet:
    """The texts of a file.

    Raises:
      InputError: a bad row (file:line:field), fewer than two labels, or more than `MOST_LABELS`.
    """
    texts = parse_records(path, parse_labelling, lambda one: one.id, number=True).whole(path)
    labels = tuple(dict.fromkeys(one.label for one in texts))
    if not 2 <= len(labels) <= MOST_LABELS:
        raise InputError(f"{path}: {len(labels)} different labels; give 2 to {MOST_LABELS}")
    return LabelledSet(path.stem, texts, labels)


def shipped_labelled(languages: Sequence[Language]) -> list[LabelledSet]:
    """The shipped sentences of those languages: positive, negative, neutral."""
    return [
        read_labelled(samples.path(f"sentiment/sentiment.{language}.jsonl"))
        for language in languages
    ]


def parse_labelling(row: Row) -> Labelling:
    """One row. Raises `InputError`: `field: what; allowed: ...`."""
    fields.known_keys(row, required=("text", "label"), optional=("id", "lang", "group"))
    language = fields.label_field(row, "lang", LANGUAGES) if row.get("lang") else "en"
    name = fields.name_field(row, "id")
    group = fields.name_field(row, "group") if row.get("group") else name
    text, label = fields.text_field(row, "text"), fields.name_field(row, "label")
    return Labelling(name, group, text, label.strip(), cast(Language, language))

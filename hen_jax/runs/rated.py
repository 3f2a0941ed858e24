"""Which rated conversations a run reads: settings -> marked conversations of each part."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Natural, check_ranges
from hen_jax.data.rated import RatedDocument, Reads, replies_only
from hen_jax.data.rated_batches import Marked, RatedConfig, mark
from hen_jax.data.schemas import check_records, rated_of
from hen_jax.data.splits import Part, part_number, part_of, why_empty
from hen_jax.models.config import DIMENSION_LABELS, RATING_LABELS
from hen_jax.runs.compared import Scope
from hen_jax.runs.sources import Source, locate_source
from hen_jax.text.chat import render_all
from hen_jax.text.tokenizer import ChatTokenizer

Predicts = Literal["overall", "dimensions"]

LABELS: dict[Predicts, tuple[str, ...]] = {
    "overall": RATING_LABELS,
    "dimensions": DIMENSION_LABELS,
}
"""The outputs of the head by what a run predicts."""

_FOLDS = "folds"
"""The salt of the hash that deals groups to folds."""


@dataclasses.dataclass(frozen=True)
class Folds:
    """Which groups are held out: those of one fold of several, or those of the house's valid part.

    Raises:
      InputError: a fold that there is not.
    """

    count: Natural = 0  # folds, by a hash of the group's name; 0: train, valid and test
    held: Natural = 0  # the fold that is held out; all others train
    salt: str = _FOLDS  # another one deals the groups anew

    def __post_init__(self):
        check_ranges(self)
        if self.count == 1 or (self.count and self.held >= self.count):
            raise InputError(
                f"count is {self.count} and held {self.held}; give 2 folds or more, and hold out "
                "one of them, from 0"
            )

    def part(self, group: str) -> Part:
        """The part of a group."""
        if not self.count:
            return part_of(group)
        held = part_number(group, self.count, self.salt) == self.held
        return "valid" if held else "train"


class RatedAsked(NamedTuple):
    """What is rated, and what of it a model sees."""

    sources: tuple[Source, ...]
    level: Scope
    reads: Reads
    predicts: Predicts
    folds: Folds


class RatedPart(NamedTuple):
    """The rated conversations of one part of a run's data."""

    documents: list[Marked]
    rated: list[RatedDocument]  # what they were made from, one for each
    dropped: int  # conversations longer than a row
    unrated: int  # conversations without a rating that is asked for

    def describe(self, name: str, row_length: int) -> str:
        """One line for a log: nothing is left out silently."""
        marks = sum(len(one.marks) for one in self.documents)
        return (
            f"{name}: {len(self.documents)} conversations with {marks} ratings; left out: "
            f"{self.dropped} longer than data.row_length {row_length}, {self.unrated} without a "
            "rating"
        )


class RatedParts(NamedTuple):
    """The parts that a run uses."""

    train: RatedPart
    valid: RatedPart


def rated_parts(asked: RatedAsked, config: RatedConfig, tokenizer: ChatTokenizer) -> RatedParts:
    """The sources' rated conversations, dealt to their parts by group, rendered.

    Raises:
      InputError: no source, one without ratings or with a weight, a bad record (file:line:field),
        or a part without anything.
    """
    if not asked.sources:
        raise InputError("config.sources is empty; name at least one data file")
    records = [_records(source) for source in asked.sources]
    return RatedParts(
        *(_part(cast(Part, part), asked, records, config, tokenizer) for part in ("train", "valid"))
    )


def _records(source: Source) -> list[RatedDocument | None]:
    rated = rated_of(source.schema)  # refuses before anything is read
    if source.weight is not None:
        raise InputError(
            f"config.sources: {source.path} has a weight; every rating counts once here, so leave "
            "it out"
        )
    path = locate_source(source.path)
    found = check_records(path, source.schema, source.columns.given()).whole(path)
    return [rated(record) for record in found]


def _part(
    part: Part,
    asked: RatedAsked,
    records: Sequence[Sequence[RatedDocument | None]],
    config: RatedConfig,
    tokenizer: ChatTokenizer,
) -> RatedPart:
    known = [one for of_source in records for one in of_source if one is not None]
    mine = [one for one in known if asked.folds.part(one.document.group) == part]
    read = replies_only if asked.reads == "replies" else _whole
    rendered = render_all([read(one.document.conversation) for one in mine], tokenizer)
    labels = LABELS[asked.predicts]
    marked = [
        (mark(one, text, labels, asked.level), one)
        for one, text in zip(mine, rendered, strict=True)
    ]
    useful = [(document, one) for document, one in marked if len(document.marks)]
    kept = [
        (document, one) for document, one in useful if len(document.tokens) <= config.row_length
    ]
    if not kept:
        raise InputError(_nothing(part, asked, known, len(mine), len(useful), config.row_length))
    unrated = sum(map(len, records)) - len(known) if part == "train" else 0
    return RatedPart(
        [document for document, _ in kept],
        [one for _, one in kept],
        len(useful) - len(kept),
        len(mine) - len(useful) + unrated,
    )


def _whole(conversation: Any) -> Any:
    return conversation


def _nothing(
    part: Part,
    asked: RatedAsked,
    known: Sequence[RatedDocument],
    mine: int,
    useful: int,
    row_length: int,
) -> str:
    if useful:
        return (
            f"the {part} part is empty: its {useful} conversations are all longer than "
            f"config.data.row_length {row_length}; make rows longer"
        )
    if mine:
        return (
            f"the {part} part is empty: none of its {mine} conversations is rated by dimension; "
            "give config.predicts='overall'"
        )
    if not known:
        return "no conversation in config.sources is rated; name files with ratings"
    if asked.folds.count:
        groups = len({one.document.group for one in known})
        return (
            f"the {part} part is empty: fold {asked.folds.held} of {asked.folds.count} of {groups} "
            "groups; give fewer folds, or another config.folds.held"
        )
    return why_empty(part, Counter(one.document.group for one in known))

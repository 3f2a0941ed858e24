"""The examples of each task, and episodes on the mesh."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data.episodes import Examples
from hen_jax.data.examples import Document, Example, encode
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.data.splits import Splits, part_number, split_records
from hen_jax.recipes.emcl_settings import EmclSettings
from hen_jax.runs.sources import Source, locate_source
from hen_jax.text.tokenizer import ChatTokenizer

META_SALT = "meta-validation-1"
"""Deals training groups to support and queries, apart from how `data.splits` deals the parts."""


class TaskParts(NamedTuple):
    """Examples by task of the parts that a run uses."""

    train: Examples  # the support of training episodes
    meta: Examples | None  # their queries; None: those of `train`, of other groups
    valid: Examples


def read_tasks(settings: EmclSettings, tokenizer: ChatTokenizer) -> TaskParts:
    """Examples of the sources under the label that says their task; records of others are left out.

    Raises:
      InputError: a bad source, or a task without examples.
    """
    tasks, drawn = settings.tasks, settings.episode

    def read(sources: tuple[Source, ...]) -> Splits[tuple[str, Document]]:
        labelled = [pair for source in sources for pair in _labelled(source, drawn.label)]
        return split_records(labelled, lambda pair: pair[1].group)

    parts = read(settings.sources)

    def by_task(name: str, pairs: list[tuple[str, Document]]) -> dict[str, list[Example]]:
        found = {}
        for task in tasks:
            documents = [document for label, document in pairs if label == task]
            encoded = encode(documents, tokenizer, max_length=drawn.row_length)
            print(f"{name}, {task}: {encoded.summary()}")
            if not encoded.examples:
                there = ", ".join(sorted({label for part in parts for label, _ in part}))
                raise InputError(
                    f"config.tasks: no {name} record has the {drawn.label} {task!r}; the "
                    f"sources have {there}"
                )
            found[task] = encoded.examples
        return found

    if settings.trusted:
        asked = read(settings.trusted)
        support, queries, valid = parts.train, asked.train, asked.valid
    else:
        support, queries = _apart(parts.train, drawn.meta_share)
        valid = parts.valid
    return TaskParts(
        by_task("train", support),
        by_task("meta-validation", queries) if queries or settings.trusted else None,
        by_task("valid", valid),
    )


def _apart(
    pairs: Sequence[tuple[str, Document]], share: float
) -> tuple[list[tuple[str, Document]], list[tuple[str, Document]]]:
    """Pairs whose groups train, and those of the groups that only queries have: `share` of the
    groups, rounded up, so that a small set has some whatever their names are."""
    groups = {pair[1].group for pair in pairs}
    dealt = sorted(groups, key=lambda group: part_number(group, 2**32, META_SALT))
    asked = set(dealt[: math.ceil(share * len(dealt))])
    support = [pair for pair in pairs if pair[1].group not in asked]
    queries = [pair for pair in pairs if pair[1].group in asked]
    return support, queries


class EpisodeBounds(NamedTuple):
    """What the step is compiled for."""

    trained: int  # the most positions that any row trains
    examples: int  # of the support


def episode_bounds(parts: TaskParts) -> EpisodeBounds:
    """The bounds of all episodes of a run."""
    every = [x for part in parts if part for examples in part.values() for x in examples]
    most = max(int(example.mask[1:].sum()) for example in every)
    return EpisodeBounds(most, sum(map(len, parts.train.values())))


def _labelled(source: Source, label: str) -> list[tuple[str, Document]]:
    """Documents of a source beside the label of each.

    Raises:
      InputError: a bad source, or records of a schema that has no such label.
    """
    schema, path = schema_named(source.schema), locate_source(source.path)
    records = check_records(path, source.schema, source.columns.given()).whole(path)
    names = schema.labels(records[0])
    if label not in names:
        raise InputError(
            f"config.episode.label is {label!r}; records of the schema {source.schema!r} have "
            f"{', '.join(names) or 'no labels'}"
        )
    return [(schema.labels(record)[label], schema.document(record)) for record in records]

"""Which compared replies a run reads: settings -> pairs of each part, with crossings built."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.types import RowLimits
from hen_jax.data.comparison_batches import ComparisonBounds, ComparisonConfig, Comparisons
from hen_jax.data.comparisons import Taken, most_replies, reach_of, render_comparisons, turn_pairs
from hen_jax.data.crossed import BUILT, crossed_pairs, is_crossed
from hen_jax.data.preferences import Labelled, Pair
from hen_jax.data.schemas import check_records, pairs_of, schema_named
from hen_jax.data.splits import Part, part_of, why_empty
from hen_jax.runs.sources import Source, locate_source
from hen_jax.text.tokenizer import ChatTokenizer

Scope = Literal["conversation", "turn"]

_MULTIPLE = 32
"""Rows are as long as the longest prompt with its replies, rounded up to this."""


class Asked(NamedTuple):
    """What is compared."""

    sources: tuple[Source, ...]
    level: Scope  # of pairs that are whole conversations
    crossings: tuple[str, ...]  # built from the records of the sources
    plain: bool = True  # pairs that are not crossed, too
    labels: bool = False  # also of single replies, of sources of the schema "label"


class Tasked(NamedTuple):
    """A record, and the task (or kind, or schema) under whose calibration its replies fall."""

    pair: Pair | Labelled
    task: str


Take = Callable[..., Taken]
"""`take(records, tokenizer, row_length=, shared=)`: records brought together by prompt, rendered:
`data.comparisons.render_comparisons` for scores, `data.continuations.continuations` for a
policy."""


class ComparedPart(NamedTuple):
    """The comparisons of one part of a run's data."""

    found: Comparisons
    tasks: dict[str, str]  # id of a pair -> its task
    dropped: int  # prompts that with their replies are longer than a row
    silent: int = 0  # prompts left out as a side of them has nothing that trains

    def pairs(self) -> list[Pair]:
        """All pairs that are compared."""
        return [judged.pair for one in self.found.all() for judged in one.judged]


class ComparedParts(NamedTuple):
    """The parts that a run uses."""

    train: ComparedPart
    valid: ComparedPart


def compared_parts(
    asked: Asked,
    config: ComparisonConfig,
    tokenizer: ChatTokenizer,
    take: Take = render_comparisons,
) -> ComparedParts:
    """The sources' pairs, dealt to their parts by group, rendered.

    `describe_part` says what was left out. Weights as in `runs.sources.prepared`. Crossings are
    built within each part, so that no statement is on both sides.

    Raises:
      InputError: no source or one without pairs, weights for some only, a crossing that no source
        gives, a bad record (file:line:field), or a part without anything.
    """
    _check(asked)
    records = [_records(source, asked) for source in asked.sources]

    def part(name: Part) -> ComparedPart:
        return _part(name, asked, records, config, tokenizer, take)

    return ComparedParts(part("train"), part("valid"))


def bounds_of(parts: ComparedParts, config: ComparisonConfig) -> ComparisonBounds:
    """The tightest bounds of all rows."""
    rows = [one for part in parts for one in part.found.all()]
    longest = max(one.length for one in rows)
    row = min(-(-longest // _MULTIPLE) * _MULTIPLE, config.row_length)
    reach: RowLimits | None = reach_of(rows) if config.shared_prompts else None
    return ComparisonBounds(row, most_replies(rows), reach)


def describe_part(name: str, part: ComparedPart, config: ComparisonConfig) -> str:
    """One line for a log: nothing is left out silently."""
    pairs = part.pairs()
    crossed = sum(is_crossed(pair.kind) for pair in pairs)
    silent = f", {part.silent} as a side has nothing that trains" if part.silent else ""
    return (
        f"{name}: {len(part.found.all())} prompts, {len(pairs)} comparisons, {crossed} of them "
        f"crossed; {part.dropped} prompts left out as longer than data.row_length "
        f"{config.row_length}{silent}"
    )


def _check(asked: Asked) -> None:
    if not asked.sources:
        raise InputError("config.sources is empty; name at least one data file")
    weights = [source.weight for source in asked.sources if source.weight is not None]
    if len(weights) not in (0, len(asked.sources)):
        raise InputError(
            f"{len(weights)} of {len(asked.sources)} config.sources have a weight; give it to all "
            "or none"
        )
    schemas = {source.schema for source in asked.sources}
    for name in asked.crossings:
        if name not in BUILT:
            raise InputError(f"config.crossings names {name!r}; allowed: {', '.join(BUILT)}")
        if BUILT[name][0] not in schemas:
            raise InputError(
                f"config.crossings names {name!r}, which is built from a source of the schema "
                f"{BUILT[name][0]!r}; config.sources has none"
            )


def _records(source: Source, asked: Asked) -> list[Any]:
    if not _labelled(source, asked):
        pairs_of(source.schema)  # refuses before anything is read
    path = locate_source(source.path)
    return check_records(path, source.schema, source.columns.given()).whole(path)


def _part(
    part: Part,
    asked: Asked,
    records: Sequence[list[Any]],
    config: ComparisonConfig,
    tokenizer: ChatTokenizer,
    take: Take,
) -> ComparedPart:
    weighted = asked.sources[0].weight is not None
    each = [
        list(_pairs(source, part, asked, of_source))
        for source, of_source in zip(asked.sources, records, strict=True)
    ]
    if not weighted or part == "valid":  # a held-out prompt counts once, whatever the weights
        each = [[one for of_source in each for one in of_source]]
    tasks = {one.pair.id: one.task for of_set in each for one in of_set}
    taken = [
        take(
            [one.pair for one in of_set],
            tokenizer,
            row_length=config.row_length,
            shared=config.shared_prompts,
        )
        for of_set in each
    ]
    sets = tuple(one.compared for one in taken)
    if not all(sets):
        raise InputError(_nothing(part, asked, records, tasks, config.row_length))
    weights = tuple(source.weight or 1.0 for source in asked.sources)
    found = Comparisons(sets, weights if len(sets) == len(weights) else (1.0,))
    dropped, silent = (sum(map(len, one)) for one in zip(*(t[1:] for t in taken), strict=True))
    return ComparedPart(found, tasks, dropped, silent)


def _pairs(source: Source, part: Part, asked: Asked, records: Iterable[Any]) -> Iterator[Tasked]:
    """The pairs of one part of a source: its own, then those of the crossings built from it."""
    schema = schema_named(source.schema)
    mine = [one for one in records if part_of(schema.document(one).group) == part]
    for record in mine:
        task = task_of(source.schema, record)
        if _labelled(source, asked):
            yield Tasked(record, task)
            continue
        for pair in pairs_of(source.schema)(record):
            if not asked.plain and not is_crossed(pair.kind):
                continue
            turns = turn_pairs(pair) if asked.level == "turn" else [pair]
            yield from (Tasked(one, task) for one in turns)
    for name in asked.crossings:
        built_from, build = BUILT[name]
        if built_from == source.schema:
            for crossing in build(mine):
                yield from (Tasked(one, name) for one in crossed_pairs(crossing))


def task_of(schema: str, record: Any) -> str:
    """The task (or kind, or else schema) of a record, under whose calibration its replies fall."""
    labels = schema_named(schema).labels(record)
    return labels.get("task", labels.get("crossing", schema))


def _labelled(source: Source, asked: Asked) -> bool:
    return asked.labels and source.schema == "label"


def _nothing(
    part: Part,
    asked: Asked,
    records: Sequence[list[Any]],
    tasks: dict[str, str],
    row_length: int,
) -> str:
    if tasks:
        return (
            f"the {part} part is empty: its prompts with their replies ({len(tasks)} pairs) are "
            f"all longer than config.data.row_length {row_length}; make rows longer"
        )
    groups = Counter(
        schema_named(source.schema).document(one).group
        for source, of_source in zip(asked.sources, records, strict=True)
        for one in of_source
    )
    return (
        why_empty(part, groups) if groups else "no record in config.sources; name files with some"
    )

"""Support and query draws for meta-learning, the same whenever the same step is drawn again.

An episode is a function of the seed and the step alone: nothing needs saving but the step, and a
resumed run draws what the killed one would have drawn.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.types import Batch
from hen_jax.data.examples import Example
from hen_jax.data.packing import pack_row, stack_rows

Examples = Mapping[str, Sequence[Example]]
"""Examples by task."""


class Draw(NamedTuple):
    """Indices of one task's examples; no group is on both sides, in this task or across tasks."""

    support: tuple[int, ...]
    query: tuple[int, ...]  # of the held-out examples, where there are any


class Episode(NamedTuple):
    """The batches of one outer step; `task` of each row is the task's place in the mapping."""

    support: Batch  # fields [tasks, steps, rows, T]; `example` counts on from task to task
    query: Batch  # fields [tasks, rows, T]


def episode(
    examples_by_task: Examples,
    seed: int,
    step: int,
    support: int,
    query: int,
    held_out: Examples | None = None,
) -> dict[str, Draw]:
    """`support` and `query` examples of each task, drawn without replacement.

    Queries come from `held_out` where it is given: examples that no episode has as support.

    A statement that stands in several tasks or languages is one group: where it supports, it is
    queried nowhere in the episode, so that the outer loss measures what was not adapted to.

    Raises:
      InputError: a task without so many examples of groups of their own; names the task.
    """
    draws: dict[str, Draw] = {}
    supporting: set[str] = set()
    queried: set[str] = set()
    for task, examples in examples_by_task.items():
        order = _generator(task, seed, step).permutation(len(examples)).tolist()
        chosen = _take(order, examples, support, task, supporting, queried)
        if held_out is not None:
            examples = held_out[task]
            order = _generator(f"query of {task}", seed, step).permutation(len(examples)).tolist()
        draws[task] = Draw(chosen, _take(order, examples, query, task, queried, supporting))
    return draws


def episode_batches(
    examples_by_task: Examples,
    draws: Mapping[str, Draw],
    *,
    steps: int,
    row_length: int,
    held_out: Examples | None = None,
) -> Episode:
    """The drawn examples, one a row, in batches of one shape for every episode.

    With 4 tasks, 8 support and 4 query examples, `steps=2` and `row_length=128` the support fields
    are `[4, 2, 4, 128]` and the query fields `[4, 4, 128]`.

    Raises:
      InputError: a support that does not divide over the steps, or an example longer than a row.
    """
    supports, queries, before = [], [], 0
    for index, (task, draw) in enumerate(draws.items()):
        if len(draw.support) % steps:
            raise InputError(
                f"{len(draw.support)} support examples do not divide over {steps} steps"
            )
        examples = examples_by_task[task]
        rows = len(draw.support) // steps
        drawn = [draw.support[start : start + rows] for start in range(0, len(draw.support), rows)]
        supports.append(
            _stack(
                _rows(examples, some, index, row_length)._replace(
                    example=before + np.asarray(some, np.int32)
                )
                for some in drawn
            )
        )
        queried = (held_out or examples_by_task)[task]
        queries.append(_rows(queried, draw.query, index, row_length))
        before += len(examples)
    return Episode(_stack(supports), _stack(queries))


def _generator(task: str, seed: int, step: int) -> np.random.Generator:
    # By its name, so that another task beside it or another order changes no permutation.
    name = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])
    return np.random.default_rng([seed, step, name])


def _take(
    order: list[int],
    examples: Sequence[Example],
    count: int,
    task: str,
    own: set[str],
    others: set[str],
) -> tuple[int, ...]:
    """The first `count` of `order` whose groups the other side does not have."""
    chosen = [index for index in order if examples[index].group not in others][:count]
    if len(chosen) < count:
        raise InputError(
            f"task {task!r} has {len(chosen)} of the {count} examples asked for in groups that the "
            "other side of the episode does not use; ask for fewer, or give more data"
        )
    own.update(examples[index].group for index in chosen)
    return tuple(chosen)


def _rows(examples: Sequence[Example], indices: Sequence[int], task: int, row_length: int) -> Batch:
    for index in indices:
        if examples[index].length > row_length:
            raise InputError(
                f"example {examples[index].id} takes {examples[index].length} positions; an "
                f"episode's rows have {row_length}"
            )
    batch = stack_rows([pack_row([examples[index]], row_length) for index in indices])
    return batch._replace(task=np.full(len(indices), task, np.int32))


def _stack(batches: Iterator[Batch] | Sequence[Batch]) -> Batch:
    """Batches of one shape under a new leading axis; fields that are None stay so."""
    columns = zip(*batches, strict=True)
    return Batch(*(None if column[0] is None else np.stack(column) for column in columns))

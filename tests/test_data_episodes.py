"""Support and query never share a statement, and a step is always drawn the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hen_jax.core.errors import InputError
from hen_jax.data.episodes import episode, episode_batches
from hen_jax.data.examples import Example

TASKS = ("SER", "SRER", "SPER", "SRPER")


def example(name: str, group: str, length: int = 5) -> Example:
    return Example(np.arange(1, length + 2, dtype=np.int32), np.arange(length + 1) > 1, name, group)


# Each statement stands in every task, in two languages, as in the shipped set.
EXAMPLES = {
    task: [example(f"{task}-{n}-{lang}", f"statement {n}") for n in range(20) for lang in "ez"]
    for task in TASKS
}


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4))
def test_no_statement_is_on_both_sides(seed, step, support, query):
    draws = episode(EXAMPLES, seed, step, support, query)
    sides = [
        {EXAMPLES[task][i].group for task, draw in draws.items() for i in draw[side]}
        for side in (0, 1)
    ]
    assert not sides[0] & sides[1]
    for draw in draws.values():
        assert (len(set(draw.support)), len(set(draw.query))) == (support, query)


def test_an_episode_depends_on_seed_and_step_and_on_nothing_else():
    first = episode(EXAMPLES, 1, 7, 3, 3)
    assert first == episode(dict(EXAMPLES), 1, 7, 3, 3)
    others = [episode(EXAMPLES, 2, 7, 3, 3), episode(EXAMPLES, 1, 8, 3, 3)]
    assert all(other != first for other in others)
    drawn = {i for step in range(60) for i in episode(EXAMPLES, 0, step, 4, 4)["SPER"].query}
    assert drawn == set(range(40))  # every example's turn comes


def test_batches_have_one_shape_and_say_their_task():
    draws = episode(EXAMPLES, 0, 0, 6, 4)
    support, query = episode_batches(EXAMPLES, draws, steps=3, row_length=8)
    assert {field.shape for field in support[:5]} == {(4, 3, 2, 8)}
    assert {field.shape for field in query[:5]} == {(4, 4, 8)}
    assert support.task.tolist() == [[[t] * 2] * 3 for t in range(4)]
    assert (support.mask.sum(), query.mask.sum()) == (4 * 6 * 4, 4 * 4 * 4)


def test_too_little_data_is_named():
    few = {"SER": [example("a", "x"), example("b", "x"), example("c", "y")]}
    assert set(episode(few, 0, 0, 1, 1)["SER"].support) <= {0, 1, 2}
    with pytest.raises(InputError, match=r"task 'SER' has [01] of the 2 examples"):
        episode(few, 0, 0, 2, 2)
    with pytest.raises(InputError, match="takes 5 positions"):
        episode_batches(EXAMPLES, episode(EXAMPLES, 0, 0, 2, 2), steps=1, row_length=4)
    with pytest.raises(InputError, match="do not divide over 2 steps"):
        episode_batches(EXAMPLES, episode(EXAMPLES, 0, 0, 3, 2), steps=2, row_length=8)

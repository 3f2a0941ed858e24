"""Gaps, factors, persistence and surviving effects, against worked numbers and planted truths."""

import numpy as np
import pytest

from hen_jax.evaluation import expert_levels
from hen_jax.evaluation.expert_levels import (
    Wanted,
    area,
    context_reductions,
    conversation_levels,
    difference,
    effect,
    gap_reduction,
    gaps,
    persistence,
    retention,
    slope,
)

NAN = np.nan


def test_equation_b():
    """As wanted 100, as the base 0, worse negative, and by hand."""
    desired, base = np.array([0.9, 0.2]), np.array([0.5, 0.6])
    assert gap_reduction(desired, base, desired) == 100
    assert gap_reduction(base, base, desired) == 0
    assert gap_reduction(np.array([0.3, 0.7]), base, desired) == pytest.approx(-37.5)
    # Gaps of 0.1 and 0.4 where there were 0.4 and 0.4: half is left, and 75 and 0 in the contexts.
    half = np.array([0.8, 0.6])
    assert gap_reduction(half, base, desired) == pytest.approx(37.5)
    np.testing.assert_allclose(context_reductions(half, base, desired), [75, 0])
    # Beyond what is wanted is a gap as well.
    assert gap_reduction(np.array([0.9, 0.0]), base, desired) == pytest.approx(75)
    assert np.isnan(gap_reduction(half, desired, desired))
    np.testing.assert_array_equal(context_reductions(half, desired, desired), [NAN, NAN])


def wanted(size: int) -> Wanted:
    contexts = ["distress"] * (size // 2) + ["writing"] * (size - size // 2)
    desired = np.where(np.asarray(contexts) == "distress", 0.9, 0.2)
    return Wanted([f"g{at}" for at in range(size)], contexts, desired)


def test_gaps_are_of_the_contexts_means_on_the_turns_of_both():
    base = np.array([[0.5, 0.5], [0.3, NAN], [0.6, 0.6], [0.6, 0.6]])
    arm = np.array([[0.9, 0.7], [0.7, 0.9], [0.4, NAN], [0.2, 0.4]])
    found = gaps(arm, base, wanted(4), draws=50)
    assert found.contexts == ("distress", "writing")
    # distress: means of 0.8 and 0.7 against 0.5 and 0.3 (one turn); writing 0.4 and 0.3.
    assert [one.value for one in found.arm] == pytest.approx([0.75, 0.35])
    assert [one.value for one in found.base] == pytest.approx([0.4, 0.6])
    assert found.reduction.value == pytest.approx(100 * (1 - 0.3 / 0.9))
    assert [one.value for one in found.reductions] == pytest.approx([70, 62.5])
    assert found.mean_reduction.value == pytest.approx(66.25)
    assert found.factor.value == pytest.approx((0.75 / 0.4 + 0.35 / 0.6) / 2)
    assert found.reduction.low <= found.reduction.value <= found.reduction.high


def test_intervals_draw_whole_groups():
    """Ten copies of a conversation say no more than one."""
    rng = np.random.default_rng(0)
    base, arm = rng.uniform(0.3, 0.5, (8, 2)), rng.uniform(0.6, 0.9, (8, 2))
    few = gaps(arm, base, wanted(8))
    many = [np.repeat(one, 10, axis=0) for one in (arm, base)]
    one = wanted(8)
    again = Wanted(
        np.repeat(one.groups, 10), np.repeat(one.contexts, 10), np.repeat(one.desired, 10)
    )
    assert gaps(*many, again).reduction == pytest.approx(few.reduction)


def test_a_conversation_that_fades():
    levels = np.array([[0.8, 0.6, 0.4]])
    np.testing.assert_allclose(retention(levels), [1, 0.75, 0.5])
    assert slope(levels) == pytest.approx(-0.2)
    assert area(retention(levels)) == pytest.approx(0.75)


def test_a_turn_is_compared_with_the_first_of_those_that_reach_it():
    """Short conversations that begin high must not make long ones fade."""
    levels = np.array([[0.9, NAN, NAN], [0.3, 0.3, 0.3]])
    np.testing.assert_allclose(retention(levels), [1, 1, 1])
    assert slope(levels) == pytest.approx(0)
    np.testing.assert_allclose(conversation_levels(levels), [0.9, 0.3])


def test_persistence_has_intervals_and_says_how_many_are_left():
    rng = np.random.default_rng(1)
    fades = np.linspace(1, 0.5, 8) * rng.uniform(0.7, 0.9, (12, 1))
    fades[6:, 5:] = NAN
    found = persistence(fades, range(12), draws=200)
    assert found.conversations == [12] * 5 + [6] * 3
    np.testing.assert_allclose([one.value for one in found.retention], np.linspace(1, 0.5, 8))
    late = np.linspace(1, 0.5, 8)[expert_levels.LATE - 1 :].mean()
    assert found.late.value == pytest.approx(late)
    assert found.slope.high < 0
    short = persistence(fades[:, :3], range(12), draws=20)
    assert np.isnan(short.late.value)


def test_what_survives_beside_replies_alone():
    rng = np.random.default_rng(2)
    base, alone = rng.uniform(0.2, 0.4, (40, 3)), rng.uniform(0.2, 0.4, (40, 3))
    style = rng.normal(0.3, 0.1, (40, 3))
    # All of it is style: nothing survives, either way.
    found = effect(base + style, base, (alone + style, alone), range(40), draws=200)
    assert found.share.value == pytest.approx(0, abs=1e-9)
    assert found.least.value == pytest.approx(0, abs=1e-9)
    assert found.difference.value == pytest.approx(style.mean())
    # Half of it is not.
    found = effect(base + style + 0.3, base, (alone + style, alone), range(40), draws=200)
    assert found.remaining.value == pytest.approx(0.3)
    assert found.share.value == pytest.approx(0.3 / (0.3 + style.mean()))
    assert found.share.low > 0.3
    # Replies alone see nothing: all survives, either way.
    found = effect(base + 0.2, base, (alone, alone), range(40), draws=50)
    assert found.share.value == found.least.value == 1


def test_the_line_through_0_gives_replies_alone_what_is_constant():
    base, r = np.full((30, 2), 0.3), np.random.default_rng(3).normal(0.2, 0.01, (30, 2))
    found = effect(base + 0.2, base, (r, np.zeros_like(r)), range(30), draws=50)
    assert found.share.value == pytest.approx(1)
    assert found.least.value == pytest.approx(0, abs=0.01)


def test_differences_are_on_the_same_turns():
    arm, base = np.array([[0.5, 0.9], [0.4, NAN]]), np.array([[0.2, NAN], [0.2, 0.9]])
    assert difference(arm, base, ["a", "b"], draws=20).value == pytest.approx(0.25)

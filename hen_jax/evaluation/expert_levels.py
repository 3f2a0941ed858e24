"""How much of the empathy that was wanted is there: gaps, factors, persistence over turns, and what
is left of an effect beside what replies alone show.

After the empathetic expert adapters; equation B, persistence and the factor are our reconstruction.
Levels are `[C, T]` in [0, 1]: of the reply at turn `t` of conversation `c`, NaN where there is
none. Intervals draw whole groups of conversations.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.evaluation.preferences import Estimate, estimate, estimates


class Wanted(NamedTuple):
    """What the conversations are, and what is wanted of each."""

    groups: Sequence[Hashable]  # [C]
    contexts: Sequence[str]  # [C]
    desired: np.ndarray  # [C] level in [0, 1]


def conversation_levels(levels: np.ndarray) -> np.ndarray:
    """`[C]`: each conversation's mean over its turns; NaN where it has none."""
    there = ~np.isnan(levels)
    count = there.sum(axis=1)
    total = np.where(there, levels, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def gap_reduction(adapter: np.ndarray, base: np.ndarray, desired: np.ndarray) -> float:
    """Equation B, in percent: `100 (1 - sum_k |P_k - D_k| / sum_k |B_k - D_k|)`.

    Of levels `[K]` of the contexts. As wanted 100, as the base 0, worse than it negative; NaN where
    the base has no gap.
    """
    gap, before = np.abs(adapter - desired).sum(), np.abs(base - desired).sum()
    return float(100 * (1 - gap / before)) if before > 0 else float("nan")


def context_reductions(adapter: np.ndarray, base: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """`[K]`: equation B of each context alone; which mean the paper takes is not known."""
    before = np.abs(base - desired)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before > 0, 100 * (1 - np.abs(adapter - desired) / before), np.nan)


class Gaps(NamedTuple):
    """How far an arm is from what is wanted, beside the baseline."""

    contexts: tuple[str, ...]
    desired: list[Estimate]  # [K]
    base: list[Estimate]  # [K] mean levels
    arm: list[Estimate]  # [K]
    reductions: list[Estimate]  # [K] percent
    reduction: Estimate  # equation B: over the sums
    mean_reduction: Estimate  # of the contexts that have a gap
    factor: Estimate  # mean over contexts of the arm's level over the baseline's


def gaps(
    arm: np.ndarray, base: np.ndarray, wanted: Wanted, *, draws: int = 2000, seed: int = 0
) -> Gaps:
    """Gap reduction and factor of an arm, on the turns that have a level under both.

    Raises:
      ValueError: no conversation has one.
    """
    both = np.isnan(arm) | np.isnan(base)
    arm, base = (conversation_levels(np.where(both, np.nan, one)) for one in (arm, base))
    there = ~np.isnan(arm + wanted.desired)
    names = tuple(dict.fromkeys(np.asarray(wanted.contexts)[there].tolist()))
    place = np.asarray([names.index(name) if name in names else -1 for name in wanted.contexts])
    rows = np.stack([place, arm, base, wanted.desired], axis=1)[there]
    groups = [group for group, one in zip(wanted.groups, there, strict=True) if one]
    K = len(names)

    def figures(drawn: np.ndarray) -> np.ndarray:
        means = np.asarray([_mean_rows(drawn[drawn[:, 0] == k, 1:]) for k in range(K)])
        ours, before, desired = means.T
        each = context_reductions(ours, before, desired)
        whole = gap_reduction(ours, before, desired)
        return np.concatenate(
            [desired, before, ours, each, [whole, _mean(each), _mean(_ratios(ours, before))]]
        )

    found = estimates(rows, groups, figures, draws=draws, seed=seed)
    many = [_groups_in(groups, np.asarray(rows[:, 0] == k)) for k in range(K)]
    desired, before, ours, each = (_of_groups(found[k * K : (k + 1) * K], many) for k in range(4))
    whole, mean, factor = found[4 * K :]
    return Gaps(names, desired, before, ours, each, whole, mean, factor)


class Persistence(NamedTuple):
    """How an arm's level goes on over the turns, against its own first turn."""

    levels: list[Estimate]  # [T] means of the conversations that have the turn
    retention: list[Estimate]  # [T] level at the turn over level at the first, same conversations
    late: Estimate  # mean retention from turn `LATE` on; NaN where no conversation is so long
    slope: Estimate  # level per turn, within conversations
    area: Estimate  # under the retention, over the turns after the first: 1 is held throughout
    conversations: list[int]  # [T] that have the turn


LATE = 5
"""From this turn on, counted from 1, a reply is late."""


def persistence(
    levels: np.ndarray, groups: Sequence[Hashable], *, draws: int = 2000, seed: int = 0
) -> Persistence:
    """Retention, slope and area of one arm.

    Each turn is compared with the first turn of those conversations that reach it: long ones may be
    of another kind. Levels 0.8, 0.6, 0.4 of one conversation have retention 1, 0.75, 0.5, slope
    -0.2 and area 0.75.
    """
    there = ~np.isnan(levels[:, 0])
    rows = levels[there]
    groups = [group for group, one in zip(groups, there, strict=True) if one]
    T = levels.shape[1]

    def figures(drawn: np.ndarray) -> np.ndarray:
        means = _column_means(drawn)
        kept = retention(drawn)
        return np.concatenate([means, kept, [_mean(kept[LATE - 1 :]), slope(drawn), area(kept)]])

    found = estimates(rows, groups, figures, draws=draws, seed=seed)
    said = np.isfinite(rows)
    many = [_groups_in(groups, said[:, turn]) for turn in range(T)]
    late_ones = np.asarray(said[:, LATE - 1 :].any(axis=1))
    (late,) = _of_groups(found[2 * T : 2 * T + 1], [_groups_in(groups, late_ones)])
    means, kept = (_of_groups(found[k * T : (k + 1) * T], many) for k in range(2))
    fall, held = found[2 * T + 1 :]
    return Persistence(means, kept, late, fall, held, said.sum(axis=0).tolist())


def _groups_in(groups: Sequence[Hashable], there: np.ndarray) -> int:
    return len({group for group, one in zip(groups, there, strict=True) if one})


def _of_groups(found: Sequence[Estimate], many: Sequence[int]) -> list[Estimate]:
    """Figures of some of the groups, with how many these are; one alone has no interval."""
    none = float("nan")
    return [
        one._replace(groups=number) if number > 1 else Estimate(one.value, none, none, number)
        for one, number in zip(found, many, strict=True)
    ]


def retention(levels: np.ndarray) -> np.ndarray:
    """`[T]`: mean level at a turn over the mean first level of the conversations that have it."""
    first = np.where(np.isnan(levels), np.nan, levels[:, :1])
    return _ratios(_column_means(levels), _column_means(first))


def slope(levels: np.ndarray) -> float:
    """Level per turn by least squares, each conversation about its own means."""
    there = ~np.isnan(levels)
    turns = np.where(there, np.arange(levels.shape[1], dtype=float), np.nan)
    x, y = (one - conversation_levels(one)[:, None] for one in (turns, levels))
    x, y = x[there], y[there]
    return float(x @ y / (x @ x)) if len(x) and x @ x > 0 else float("nan")


def area(kept: np.ndarray) -> float:
    """Under the retention by trapezoids, over the number of steps, up to the last known turn."""
    kept = kept[~np.isnan(kept)]
    return float(((kept[1:] + kept[:-1]) / 2).mean()) if len(kept) > 1 else float("nan")


class Effect(NamedTuple):
    """The difference of an arm from the baseline on the same user turns, and what is left of it."""

    difference: Estimate  # mean level
    remaining: Estimate  # at equal scores by replies alone
    share: Estimate  # the second over the first
    least: Estimate  # the share where replies alone are given all that they could explain


def effect(
    arm: np.ndarray,
    base: np.ndarray,
    alone: tuple[np.ndarray, np.ndarray],
    groups: Sequence[Hashable],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Effect:
    """How much of an arm's effect survives when the score of replies alone is regressed out.

    `alone` are the reply-only levels `[C, T]` of arm and baseline. With `d` the difference at a
    user turn and `r` that by replies alone, `remaining` is `a` of `d = a + b r` by least squares.
    `least` takes the line through 0, which credits replies alone with whatever goes with them: it
    is near 0 wherever both differences are about constant. The truth lies between; noise in `r`
    makes the first too large.
    """
    rows = np.stack([arm - base, alone[0] - alone[1]], axis=1)  # [C, 2, T]
    there = np.asarray(np.isfinite(rows).all(axis=1))
    rows = np.where(there[:, None], rows, np.nan)
    kept = np.asarray(there.any(axis=1))
    groups = [group for group, one in zip(groups, kept, strict=True) if one]

    def figures(drawn: np.ndarray) -> np.ndarray:
        d, r = (part[~np.isnan(part)] for part in (drawn[:, 0], drawn[:, 1]))
        whole, left, least = d.mean(), _intercept(d, r), _through_origin(d, r)
        shares = [one / whole if whole else np.nan for one in (left, least)]
        return np.asarray([whole, left, *shares])

    return Effect(*estimates(rows[kept], groups, figures, draws=draws, seed=seed))


def closeness(levels: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """`[C, T]`: 1 where a level is as desired of its conversation, less what it is off."""
    return 1 - np.abs(levels - desired[:, None])


def difference(
    arm: np.ndarray,
    other: np.ndarray,
    groups: Sequence[Hashable],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The mean difference of two arms on the user turns that both have.

    Raises:
      ValueError: there is none.
    """
    rows = arm - other
    kept = np.asarray(~np.isnan(rows).all(axis=1))
    groups = [group for group, one in zip(groups, kept, strict=True) if one]

    def mean(drawn: np.ndarray) -> float:
        return _mean(drawn.ravel())

    return estimate(rows[kept], groups, mean, draws=draws, seed=seed)


def _intercept(d: np.ndarray, r: np.ndarray) -> float:
    spread = r - r.mean()
    b = spread @ d / (spread @ spread) if spread @ spread > 0 else 0.0
    return float(d.mean() - b * r.mean())


def _through_origin(d: np.ndarray, r: np.ndarray) -> float:
    b = r @ d / (r @ r) if r @ r > 0 else 0.0
    return float(d.mean() - b * r.mean())


def _mean_rows(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0) if len(rows) else np.full(rows.shape[1], np.nan)


def _column_means(levels: np.ndarray) -> np.ndarray:
    return conversation_levels(levels.T)


def _ratios(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under > 0, over / under, np.nan)


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")

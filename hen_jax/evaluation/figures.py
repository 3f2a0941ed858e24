"""From what suites observed to figures: intervals, differences of arms on the same items, Holm.

Intervals are the 2.5 % and 97.5 % quantiles of a bootstrap that draws whole clusters, as items of
one statement or conversation are not independent; of fewer than about ten clusters they are too
narrow. A difference of two arms is taken on the items that have a value under both. Its P is that
of approximate randomisation (Noreen, 1989; Riezler and Maxwell, 2005): how often a difference is
as large when each cluster's two sides are exchanged at random. Three clusters cannot reach less
than 0.25, however large the difference is.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from hen_jax.evaluation.ratings import holm
from hen_jax.evaluation.suite import Corpus, Found, Measured, Observed, is_whole

_DRAWS = 2000
_EQUAL = 1e-9  # two sums of the same numbers in another order are equal
_CHUNK = 200  # draws at a time: a matrix of them by clusters is in memory


class Drawing(NamedTuple):
    """Of the bootstrap."""

    seed: int = 0
    draws: int = _DRAWS


DRAWING = Drawing()


class Figure(NamedTuple):
    """A value, its 95 % interval, and the clusters behind it."""

    value: float
    low: float
    high: float
    clusters: int
    p: float = math.nan  # of a difference: that there is none


def measured(suite: str, arm: str, found: Found, drawing: Drawing = DRAWING) -> Measured:
    """What was found of an arm as a line of the results."""
    if isinstance(found, Measured):
        return found._replace(suite=suite, arm=found.arm or arm)
    if isinstance(found, Corpus):
        figure = _jackknife(found.value, found.without)
        return _line(suite, arm, found, figure, (found.items, found.missing), drawing)
    values = _table(found.values)
    there = np.asarray(~np.isnan(values).any(axis=1))
    clusters = [cluster for cluster, kept in zip(found.clusters, there, strict=True) if kept]
    figure = bootstrap(values[there], clusters, found.figure or _mean, drawing)
    counts = int(there.sum()), int((~there).sum())
    return _line(suite, arm, found, figure, counts, drawing)


def differences(
    suite: str,
    found: Mapping[str, Sequence[Found]],
    first: str,
    drawing: Drawing = DRAWING,
) -> list[Measured]:
    """Each arm less the first one, measure by measure, with Holm's correction.

    It is over all differences of whole groups, and over all of their parts: two families. What a
    suite measured by itself (`Measured`) has no items, so no difference.
    """
    base = {(one.measure, one.group): one for one in found[first]}
    lines = [
        line
        for arm, own in found.items()
        if arm != first
        for one in own
        if (line := _difference(suite, arm, one, first, base, drawing)) is not None
    ]
    for whole in (True, False):
        tested = {at: line.p for at, line in enumerate(lines)
                  if line.p is not None and is_whole(line.group) == whole}  # fmt: skip
        for at, p in zip(tested, holm(list(tested.values())), strict=True):
            lines[at] = lines[at]._replace(p_holm=p)
    return lines


def bootstrap(
    values: np.ndarray,
    clusters: Sequence[str],
    figure: Callable[[np.ndarray], np.ndarray],
    drawing: Drawing = DRAWING,
) -> Figure:
    """`figure` of the sums of `values` `[n, k]` over all items, with its interval.

    A draw of which the figure is not a number is left out of the interval. One cluster alone has no
    interval, and no item no value: NaN.
    """
    if not len(values):
        return Figure(math.nan, math.nan, math.nan, 0)
    sums, value = _cluster_sums(values, clusters), float(figure(values.sum(axis=0)))
    if len(sums) < 2 or math.isnan(value):
        return Figure(value, math.nan, math.nan, len(sums))
    drawn = np.concatenate(list(_drawn(sums, figure, drawing)))
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (math.nan, math.nan)
    return Figure(value, float(low), float(high), len(sums))


def randomisation(
    values: np.ndarray,
    clusters: Sequence[str],
    figure: Callable[[np.ndarray], np.ndarray],
    drawing: Drawing = DRAWING,
) -> float:
    """P that two arms do not differ; `values` `[n, 2 k]` has the one's columns, then the other's.

    A draw in which the difference is not a number counts as one that is as large. NaN where there
    is no item, or no difference.
    """
    if not len(values):
        return math.nan
    sums, random = _cluster_sums(values, clusters), np.random.default_rng(drawing.seed)
    one, other = np.split(sums, 2, axis=1)
    gained, reached = _gained(figure), 0
    found = abs(float(gained(sums.sum(axis=0))))
    if math.isnan(found):
        return math.nan
    for start in range(0, drawing.draws, _CHUNK):
        size = min(_CHUNK, drawing.draws - start)
        moved = random.integers(0, 2, (size, len(sums))) @ (one - other)
        drawn = np.concatenate([one.sum(axis=0) - moved, other.sum(axis=0) + moved], axis=1)
        smaller = np.abs(gained(drawn)) < found - _EQUAL * max(found, 1.0)
        reached += int(np.sum(~smaller))
    return (reached + 1) / (drawing.draws + 1)


def _gained(figure: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The figure of the first half of the columns less that of the second."""

    def gained(sums: np.ndarray) -> np.ndarray:
        width = sums.shape[-1] // 2
        return figure(sums[..., :width]) - figure(sums[..., width:])

    return gained


def _cluster_sums(values: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """`[g, k]`: the sums over each cluster, by their names in order."""
    names, which = np.unique(np.asarray([str(one) for one in clusters]), return_inverse=True)
    return np.stack([np.bincount(which, column, len(names)) for column in values.T], axis=1)


def _drawn(
    sums: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], drawing: Drawing
) -> Iterable[np.ndarray]:
    """The figure of each draw, some draws at a time."""
    random, size = np.random.default_rng(drawing.seed), len(sums)
    for start in range(0, drawing.draws, _CHUNK):
        drawn = random.integers(0, size, (min(_CHUNK, drawing.draws - start), size))
        weights = np.stack([np.bincount(row, minlength=size) for row in drawn])
        yield figure(weights @ sums)


def _difference(
    suite: str,
    arm: str,
    found: Found,
    first: str,
    base: Mapping[tuple[str, str], Found],
    drawing: Drawing,
) -> Measured | None:
    other = base.get((found.measure, found.group))
    if isinstance(found, Observed) and isinstance(other, Observed):
        figure, counts = _paired(found, other, drawing)
    elif isinstance(found, Corpus) and isinstance(other, Corpus):
        shared = found.without.keys() & other.without.keys()
        without = {name: found.without[name] - other.without[name] for name in sorted(shared)}
        figure = _jackknife(found.value - other.value, without)
        counts = min(found.items, other.items), max(found.missing, other.missing)
    else:
        return None
    p = None if math.isnan(figure.p) else figure.p
    return _line(suite, arm, found, figure, counts, drawing)._replace(against=first, p=p)


def _paired(found: Observed, other: Observed, drawing: Drawing) -> tuple[Figure, tuple[int, int]]:
    """The difference on the items with a value in both, and how many have and have not."""
    ours, theirs = _table(found.values), _table(other.values)
    place = {name: at for at, name in enumerate(other.ids)}
    pairs = [(at, place[name]) for at, name in enumerate(found.ids) if name in place]
    both = [
        (one, two)
        for one, two in pairs
        if not (np.isnan(ours[one]).any() or np.isnan(theirs[two]).any())
    ]
    mine, yours = [one for one, _ in both], [two for _, two in both]
    values = np.concatenate([ours[mine], theirs[yours]], axis=1)
    figure, clusters = found.figure or _mean, [found.clusters[one] for one in mine]
    counts = len(both), len(set(found.ids) | set(other.ids)) - len(both)
    p = randomisation(values, clusters, figure, drawing)
    return bootstrap(values, clusters, _gained(figure), drawing)._replace(p=p), counts


def _jackknife(value: float, without: Mapping[str, float]) -> Figure:
    """Leaving out one cluster at a time, with Student's t; for figures that repeats would change.

    A word said twice because its reply was drawn twice is no repetition of the model's. No P where
    no cluster makes a difference.
    """
    left, size = np.asarray(list(without.values()), float), len(without)
    if size < 2 or math.isnan(value) or np.isnan(left).any():
        return Figure(value, math.nan, math.nan, size)
    spread = math.sqrt((size - 1) / size * float(((left - left.mean()) ** 2).sum()))
    half = float(stdtrit(size - 1, 0.975)) * spread
    p = 2 * float(stdtr(size - 1, -abs(value) / spread)) if spread else math.nan
    return Figure(value, value - half, value + half, size, p)


def _table(values: np.ndarray) -> np.ndarray:
    """`[n, k]`; of plain values with a column of ones, whose sum is their count."""
    values = np.asarray(values, float)
    return values if values.ndim == 2 else np.stack([values, np.ones(len(values))], axis=1)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _line(
    suite: str,
    arm: str,
    found: Observed | Corpus,
    figure: Figure,
    counts: tuple[int, int],
    drawing: Drawing,
) -> Measured:
    value, low, high = (None if math.isnan(one) else one for one in figure[:3])
    judged = (found.judge, found.prompt_hash) if isinstance(found, Observed) else ("", "")
    return Measured(
        suite, arm, found.measure, found.group, value, low, high, counts[0], figure.clusters,
        counts[1], found.better, seed=drawing.seed, judge=judged[0], prompt_hash=judged[1],
        about=found.about,
    )  # fmt: skip

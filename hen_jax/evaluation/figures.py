"""From what suites observed to figures: intervals, differences of arms on the same items, Holm.

Intervals are the 2.5 % and 97.5 % quantiles of a bootstrap that draws whole clusters, as items of
one statement or conversation are not independent. A difference of two arms is taken on the items
that have a value under both, with the same draws for both.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.evaluation.ratings import holm
from hen_jax.evaluation.suite import Corpus, Found, Measured, Observed

DRAWS = 2000
_CHUNK = 200  # draws at a time: a matrix of them by clusters is in memory


class Drawing(NamedTuple):
    """Of the bootstrap."""

    seed: int = 0
    draws: int = DRAWS


DRAWING = Drawing()


class Figure(NamedTuple):
    """A value, its 95 % interval, the clusters behind it, and P of no difference from 0."""

    value: float
    low: float
    high: float
    clusters: int
    p: float


def measured(suite: str, arm: str, found: Found, drawing: Drawing = DRAWING) -> Measured:
    """What was found of an arm as a line of the results."""
    if isinstance(found, Measured):
        return found._replace(suite=suite, arm=found.arm or arm)
    if isinstance(found, Corpus):
        figure = _jackknife(found.value, found.without)
        return _line(suite, arm, found, figure, (found.items, found.missing), drawing)
    values = _table(found.values)
    there = ~np.isnan(values).any(axis=1)
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
    """Each arm less the first one, measure by measure, with Holm's correction over all of them.

    What a suite measured by itself (`Measured`) has no items, so no difference.
    """
    base = {(one.measure, one.group): one for one in found[first]}
    lines = [
        line
        for arm, own in found.items()
        if arm != first
        for one in own
        if (line := _difference(suite, arm, one, first, base, drawing)) is not None
    ]
    tested = [at for at, line in enumerate(lines) if line.p is not None]
    corrected = holm([line.p for line in lines if line.p is not None])
    for at, p in zip(tested, corrected, strict=True):
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
        return Figure(math.nan, math.nan, math.nan, 0, math.nan)
    names, which = np.unique(np.asarray([str(one) for one in clusters]), return_inverse=True)
    sums = np.stack([np.bincount(which, column, len(names)) for column in values.T], axis=1)
    value = float(figure(values.sum(axis=0)))
    if len(names) < 2 or math.isnan(value):
        return Figure(value, math.nan, math.nan, len(names), math.nan)
    drawn = np.concatenate(list(_drawn(sums, figure, drawing)))
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(value, float(low), float(high), len(names), _two_sided(drawn))


def _drawn(
    sums: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], drawing: Drawing
) -> Iterable[np.ndarray]:
    """The figure of each draw, some draws at a time."""
    random, size = np.random.default_rng(drawing.seed), len(sums)
    for start in range(0, drawing.draws, _CHUNK):
        drawn = random.integers(0, size, (min(_CHUNK, drawing.draws - start), size))
        weights = np.stack([np.bincount(row, minlength=size) for row in drawn])
        yield figure(weights @ sums)


def _two_sided(drawn: np.ndarray) -> float:
    """P of the bootstrap that the figure is 0: twice the smaller tail, never quite 0."""
    tails = (np.sum(drawn <= 0), np.sum(drawn >= 0))
    return float(min(1.0, 2 * (min(tails) + 1) / (len(drawn) + 1)))


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
    width, figure = ours.shape[1], found.figure or _mean

    def gained(sums: np.ndarray) -> np.ndarray:
        return figure(sums[..., :width]) - figure(sums[..., width:])

    clusters = [found.clusters[one] for one in mine]
    counts = len(both), len(set(found.ids) | set(other.ids)) - len(both)
    return bootstrap(values, clusters, gained, drawing), counts


def _jackknife(value: float, without: Mapping[str, float]) -> Figure:
    """Leaving out one cluster at a time; for figures that a bootstrap's repeats would change.

    A word said twice because its reply was drawn twice is no repetition of the model's.
    """
    left, size = np.asarray(list(without.values()), float), len(without)
    if size < 2 or math.isnan(value) or np.isnan(left).any():
        return Figure(value, math.nan, math.nan, size, math.nan)
    spread = math.sqrt((size - 1) / size * float(((left - left.mean()) ** 2).sum()))
    half = 1.959963984540054 * spread
    p = 1.0 if value == 0 else math.erfc(abs(value) / spread / math.sqrt(2)) if spread else 0.0
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

"""Who is better, from comparisons: Bradley-Terry strengths with intervals by prompt.

`P(i over j) = 1 / (1 + exp(s_j - s_i))` (Bradley and Terry, 1952), fitted by `evalica`; a tie is
half a win for each. Strengths are in nats and sum to 0. Intervals resample whole prompts, not
comparisons, as those of one prompt are not independent.

A greatest likelihood exists if and only if every player is reached from every other along "won or
tied against" (Ford, 1957). Where it does not, no strength is given, and the reason is said.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

_DRAWS = 500
"""Resamples of an interval: a few milliseconds each."""


class Comparison(NamedTuple):
    """What one prompt says of two players: 1 the first is better, 0 the second, 0.5 a tie."""

    first: str
    second: str
    outcome: float
    group: Hashable  # the prompt, or what prompts have in common


class Standing(NamedTuple):
    """One player. Strengths are None where comparisons do not give any."""

    player: str
    wins: int
    ties: int
    losses: int
    share: float  # of wins, ties as half ones
    strength: float | None  # in nats; 0 is the mean of all
    low: float | None  # of the 95 % interval; -inf where resamples give no bound
    high: float | None


class Ranking(NamedTuple):
    """All players, the best first."""

    standings: tuple[Standing, ...]
    comparisons: int
    groups: int
    separation: str | None  # why there are no strengths
    draws: int
    draws_apart: int  # resamples that give no strengths either; they widen the intervals


def rank(comparisons: Sequence[Comparison], draws: int = _DRAWS, seed: int = 0) -> Ranking:
    """Ranks the players of all comparisons.

    Of two players of whom one wins 3 of 4, or wins 2 and ties 2, the strengths differ by ln 3.

    Raises:
      ValueError: no comparison, one of a player with itself, or an outcome that is none.
    """
    players, points, groups = _tables(comparisons)
    total = points.sum(axis=0)
    separation = separated(total, players)
    found = None if separation else strengths(total)
    spread, apart = _interval(points, draws, seed)
    standings = [
        _standing(comparisons, player, None if found is None else found[place], spread[:, place])
        for place, player in enumerate(players)
    ]
    key = (lambda one: -one.share) if found is None else (lambda one: -(one.strength or 0.0))
    ordered = tuple(sorted(standings, key=key))
    return Ranking(ordered, len(comparisons), groups, separation, draws, apart)


def from_order(order: Sequence[str], group: Hashable) -> list[Comparison]:
    """A ranking, the best first, as the comparisons of all pairs in it.

    Bradley-Terry on all pairs of full rankings estimates the strengths of a Plackett-Luce model
    consistently (Azari Soufiani et al., 2013), if not as sharply as its own likelihood does.
    """
    return [Comparison(better, worse, 1.0, group) for better, worse in combinations(order, 2)]


def strengths(points: np.ndarray) -> np.ndarray:
    """Bradley-Terry strengths of players who are not separated, in nats, of mean 0.

    Args:
      points: `[n, n]`, `points[i, j]` is what i won against j, a tie as half.

    Raises:
      ValueError: the iteration does not converge.
    """
    import evalica  # brings pandas along, a second of loading

    n = len(points)
    first, second = (places.tolist() for places in np.nonzero(points))
    found = evalica.bradley_terry(
        first,
        second,
        [evalica.Winner.X] * len(first),
        weights=points[first, second].tolist(),
        tolerance=1e-10,
        limit=100_000,
    )
    if found.iterations >= found.limit:
        raise ValueError("the Bradley-Terry iteration did not converge")
    values = np.log(found.scores.reindex(range(n)).to_numpy())
    return values - values.mean()


def separated(points: np.ndarray, players: Sequence[str]) -> str | None:
    """Why these comparisons have no greatest likelihood, in words; None where they have one."""
    met = csr_matrix(points + points.T > 0)
    count, part = connected_components(met, directed=False)
    if count > 1:
        parts = [_named(players, part == one) for one in range(count)]
        return f"never compared, not through others either: {' | '.join(parts)}"
    above, below = _ends(points)
    if above.all():
        return None
    if above.sum() <= below.sum():
        return f"nobody else won or tied against {_named(players, above)}"
    return f"{_named(players, below)} never won or tied against anybody else"


def _ends(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who is in the group that no other took a point from, and in the one that took none.

    Both are all players where the comparisons hold together.
    """
    count, part = connected_components(csr_matrix(points > 0), directed=True, connection="strong")
    inside = part[:, None] == part[None, :]
    across = np.where(inside, 0.0, points)
    taken = np.bincount(part, across.sum(axis=1), minlength=count)  # from other groups
    given = np.bincount(part, across.sum(axis=0), minlength=count)  # to other groups
    return (given == 0)[part], (taken == 0)[part]


def _named(players: Sequence[str], chosen: np.ndarray) -> str:
    return ", ".join(player for player, one in zip(players, chosen, strict=True) if one)


def _tables(comparisons: Sequence[Comparison]) -> tuple[list[str], np.ndarray, int]:
    """The players, their points against each other in each group `[groups, n, n]`, the groups."""
    if not comparisons:
        raise ValueError("no comparison")
    players = list(dict.fromkeys(name for one in comparisons for name in one[:2]))
    place = {player: number for number, player in enumerate(players)}
    groups = {group: n for n, group in enumerate(dict.fromkeys(one.group for one in comparisons))}
    points = np.zeros((len(groups), len(players), len(players)))
    for first, second, outcome, group in comparisons:
        if first == second or outcome not in (0, 0.5, 1):
            raise ValueError(f"{first} against {second}: {outcome} is no outcome of two players")
        points[groups[group], place[first], place[second]] += outcome
        points[groups[group], place[second], place[first]] += 1 - outcome
    return players, points, len(groups)


def _interval(points: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, int]:
    """Bounds `[2, n]` over resampled groups, and how many resamples gave no strengths.

    In one that is separated a player of the upper end is at +inf and one of the lower end at -inf;
    who is at neither, or at both, could be anywhere and widens both bounds.
    """
    random, groups = np.random.default_rng(seed), len(points)
    lows, highs, apart = [], [], 0
    for drawn in random.integers(0, groups, (draws, groups)):
        total = np.einsum("g,gij->ij", np.bincount(drawn, minlength=groups), points)
        above, below = _ends(total)
        if above.all():
            found = strengths(total)
            lows.append(found)
            highs.append(found)
        else:
            apart += 1
            lows.append(np.where(above & ~below, np.inf, -np.inf))
            highs.append(np.where(below & ~above, -np.inf, np.inf))
    low = np.quantile(lows, 0.025, axis=0, method="lower")
    return np.stack([low, np.quantile(highs, 0.975, axis=0, method="higher")]), apart


def _standing(
    comparisons: Sequence[Comparison], player: str, strength: float | None, bounds: np.ndarray
) -> Standing:
    own = list(_outcomes(comparisons, player))
    low, high = (None, None) if strength is None else map(float, bounds)
    return Standing(
        player,
        wins=own.count(1.0),
        ties=own.count(0.5),
        losses=own.count(0.0),
        share=float(np.mean(own)),
        strength=None if strength is None else float(strength),
        low=low,
        high=high,
    )


def _outcomes(comparisons: Sequence[Comparison], player: str) -> Iterator[float]:
    for first, second, outcome, _ in comparisons:
        if player in (first, second):
            yield float(outcome if player == first else 1 - outcome)


def ranking_row(ranking: Ranking) -> Mapping[str, object]:
    """The ranking as JSON; a bound that is infinite is null there."""
    return {
        **{key: value for key, value in ranking._asdict().items() if key != "standings"},
        "standings": [
            {key: _number(value) for key, value in one._asdict().items()}
            for one in ranking.standings
        ],
    }


def _number(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    return value

"""Empathy patterns out of rated conversations: the level that people want, and what counts for it.

Both estimators are ours; the papers say that patterns came out of such data, and not how.

Level: the mean of the desired empathy of a context's conversations, on [0, 1].

Weights: `w >= 0` that sum to 1, and an offset, for which `w . ratings` comes nearest to the user's
satisfaction. The ratings of the seven dimensions go together (Cronbach's alpha above 0.9 in the
published data), so a plain regression would be mostly noise: a ridge draws the weights towards
those they had, as strongly as `PRIOR` conversations would. With `v` the mean variance of a rating,

    min over w, a:  sum_i (satisfaction_i - a - w . ratings_i)^2 + PRIOR v |w - w_0|^2

Intervals resample participants, since one rated several conversations.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from hen_jax.data.patterns import Guides
from hen_jax.data.sense7 import RatedConversation
from hen_jax.empathy.patterns import DIMENSIONS
from hen_jax.empathy.scales import DESIRED, PERCEIVED
from hen_jax.evaluation.ratings import Interval

PRIOR = 30.0
"""Conversations that the given weights count for; ours."""

LEAST = 5
"""Participants of a context at least; what fewer people say stays as it was given."""

_SUM = 1e3  # how strictly the weights sum to 1, beside terms that are at most of the order of 1


class Learnt(NamedTuple):
    """What the data says of one context."""

    conversations: int
    participants: int
    level: Interval | None  # None: too few people, so the given one stays
    weights: dict[str, Interval] | None


def learn_patterns(
    conversations: Sequence[RatedConversation], guides: Guides, *, draws: int = 300, seed: int = 0
) -> dict[str, Learnt]:
    """What rated conversations say of each context of `guides`, with 95 % intervals."""
    found = {}
    for name, guide in guides.items():
        mine = [one for one in conversations if one.context == name]
        given = np.asarray(list(guide.pattern.weights.values()))
        people = {one.participant for one in mine}
        wanted = [(one.participant, one.desired) for one in mine if one.desired is not None]
        level = _level(wanted, draws, seed)
        found[name] = Learnt(len(mine), len(people), level, _weights(mine, given, draws, seed))
    return found


def simplex_weights(
    ratings: Float[np.ndarray, "N 7"],
    satisfaction: Float[np.ndarray, "N"],
    given: Float[np.ndarray, "7"],
    prior: float = PRIOR,
) -> Float[np.ndarray, "7"]:
    """The weights as defined above; without a variance of the ratings, those given."""
    x, y = ratings - ratings.mean(axis=0), satisfaction - satisfaction.mean()
    variance = float(np.mean(x**2))
    if variance == 0:
        return given
    ridge = np.sqrt(prior * variance)
    rows = [x, ridge * np.eye(len(given)), np.full((1, len(given)), _SUM)]
    weights, _ = nnls(np.concatenate(rows), np.concatenate([y, ridge * given, [_SUM]]))
    return weights / weights.sum()


def _level(wanted: Sequence[tuple[str, float]], draws: int, seed: int) -> Interval | None:
    if len({participant for participant, _ in wanted}) < LEAST:
        return None
    values = np.asarray([DESIRED.to_unit(level) for _, level in wanted])
    drawn = [float(values[at].mean()) for at in _resampled([who for who, _ in wanted], draws, seed)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def _weights(
    conversations: Sequence[RatedConversation], given: np.ndarray, draws: int, seed: int
) -> dict[str, Interval] | None:
    known = [one for one in conversations if one.experience and _mean_ratings(one) is not None]
    if len({one.participant for one in known}) < LEAST:
        return None
    ratings = np.asarray([_mean_ratings(one) for one in known])
    satisfied = [PERCEIVED.to_unit(fmean(one.experience.values())) for one in known]
    satisfaction = np.asarray(satisfied)
    drawn = [
        simplex_weights(ratings[at], satisfaction[at], given)
        for at in _resampled([one.participant for one in known], draws, seed)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    best = simplex_weights(ratings, satisfaction, given)
    bounds = zip(best.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Interval(*one) for name, one in zip(DIMENSIONS, bounds, strict=True)}


def _mean_ratings(conversation: RatedConversation) -> list[float] | None:
    """Each dimension's mean over the rated replies, on [0, 1]; None where nothing is rated.

    One that was never rated is the mean of the others, which says nothing for or against it.
    """
    found: dict[str, list[float]] = {name: [] for name in DIMENSIONS}
    for turn in conversation.turns:
        if turn.message.role == "assistant":
            for name, rating in turn.ratings.items():
                found[name].append(PERCEIVED.to_unit(rating))
    means = {name: fmean(values) for name, values in found.items() if values}
    if not means:
        return None
    return [means.get(name, fmean(means.values())) for name in DIMENSIONS]


def _resampled(owners: Sequence[str], draws: int, seed: int) -> list[np.ndarray]:
    """For each draw the places of the conversations of participants drawn with replacement."""
    places: dict[str, list[int]] = {}
    for at, owner in enumerate(owners):
        places.setdefault(owner, []).append(at)
    own, random = [np.asarray(one) for one in places.values()], np.random.default_rng(seed)
    return [
        np.concatenate([own[at] for at in random.integers(len(own), size=len(own))])
        for _ in range(draws)
    ]

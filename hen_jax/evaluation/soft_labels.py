"""Votes to agreement and soft labels: what shares of people, or of their probable answers, say."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import expit

from hen_jax.core.errors import InputError
from hen_jax.data.votes import BOTH_BAD, FIRST, OUTCOMES, SECOND, TIE, Kind, Vote
from hen_jax.evaluation.agreement import Alpha, krippendorff_alpha, pairwise_kappas
from hen_jax.evaluation.annotators import (
    Choices,
    dawid_skene,
    reliable_bradley_terry,
)

VoteWeights = Literal["equal", "dawid_skene", "bradley_terry"]


class Ballot(NamedTuple):
    """All votes as a table."""

    items: list[str]
    annotators: list[str]
    values: np.ndarray  # [items, annotators]: ratings, or places in `OUTCOMES`; NaN is missing


class Soft(NamedTuple):
    """What is believed of each item, and of each annotator if they are weighed."""

    labels: np.ndarray  # [items, 4] shares of `OUTCOMES`, or [items, 1] ratings
    reliability: np.ndarray | None


def ballot_of(votes: Sequence[Vote]) -> Ballot:
    """The votes with items in the order in which they are met, and annotators by name."""
    items = list(dict.fromkeys(vote.item for vote in votes))
    people = sorted({vote.annotator for vote in votes})
    row, column = ({name: at for at, name in enumerate(names)} for names in (items, people))
    values = np.full((len(items), len(people)), np.nan)
    for vote in votes:
        said = OUTCOMES.index(vote.value) if isinstance(vote.value, str) else vote.value
        values[row[vote.item], column[vote.annotator]] = said
    return Ballot(items, people, values)


def require_common_items(ballot: Ballot) -> None:
    """Refuses ballots of which agreement cannot be told.

    Raises:
      InputError: a single annotator, or some who share no item with anyone.
    """
    remedy = "give --no-agreement to take the votes as they are"
    if len(ballot.annotators) < 2:
        raise InputError(
            f"one annotator only ({ballot.annotators[0]!r}, {len(ballot.items)} items), so that "
            f"agreement cannot be told; have a part rated by a second one, or {remedy}"
        )
    given = ~np.isnan(ballot.values)
    shared = given & (given.sum(axis=1, keepdims=True) > 1)
    alone = [at for at in range(len(ballot.annotators)) if not shared[:, at].any()]
    if alone:
        votes = int(given[:, alone].sum())
        names = ", ".join(repr(ballot.annotators[at]) for at in alone[:5])
        raise InputError(
            f"{len(alone)} of {len(ballot.annotators)} annotators share no item with anyone "
            f"({names}{', ...' if len(alone) > 5 else ''}; {votes} of {int(given.sum())} votes), "
            f"so that nobody can be compared with them; have shared items rated, or {remedy}"
        )


def agreement(ballot: Ballot, kind: Kind, *, seed: int = 0) -> dict[str, Any]:
    """Alphas with intervals and kappas of pairs of annotators, as JSON.

    Of choices `ordinal` puts ties, both kinds as one, between the two replies: first, tie, second.
    """
    values = ballot.values if kind == "ratings" else _in_order(ballot.values)
    nominal = krippendorff_alpha(ballot.values, "nominal", seed=seed)
    alphas = {"ordinal": krippendorff_alpha(values, "ordinal", seed=seed), "nominal": nominal}
    if kind == "ratings":
        alphas["interval"] = krippendorff_alpha(values, "interval", seed=seed)
    weights = "quadratic" if kind == "ratings" else "linear"
    kappas = pairwise_kappas(values, ballot.annotators, weights)
    known = [one for one in kappas if not math.isnan(one.kappa)]
    mean = sum(one.kappa * one.items for one in known) / max(sum(one.items for one in known), 1)
    return {
        "alpha": {name: _plain(one) for name, one in alphas.items()},
        "kappa": {
            "weights": weights,
            "mean": round(mean, 4) if known else None,  # by shared items
            "pairs": [
                {"annotators": one.annotators, "items": one.items, "kappa": _number(one.kappa)}
                for one in kappas
            ],
        },
    }


def soft_choices(ballot: Ballot, weights: VoteWeights, pairs: np.ndarray, replies: int) -> Soft:
    """The shares of first, second, tie and both bad of each item.

    Args:
      ballot: of choices.
      weights: "equal" are the shares of annotators; "dawid_skene" how probable each answer is;
        "bradley_terry" how probable each reply's win is by strengths of replies.
      pairs: `[items, 2]` numbers of the two replies, for Bradley-Terry: a reply that several pairs
        compare has one number.
      replies: how many there are.
    """
    votes = (ballot.values[..., None] == np.arange(len(OUTCOMES))).astype(float)
    if weights == "equal":
        return Soft(votes.sum(axis=1) / votes.sum(axis=(1, 2))[:, None], None)
    if weights == "dawid_skene":
        found = dawid_skene(np.nan_to_num(ballot.values, nan=-1), len(OUTCOMES))
        return Soft(found.posterior, found.reliability)
    item, who = np.nonzero(~np.isnan(ballot.values))
    win = np.asarray([1.0, 0.0, 0.5, 0.5])[ballot.values[item, who].astype(int)]
    of = reliable_bradley_terry(
        Choices(pairs[item, 0], pairs[item, 1], who, win), replies, len(ballot.annotators)
    )
    first = expit(of.strength[pairs[:, 0]] - of.strength[pairs[:, 1]])
    none = np.zeros_like(first)
    return Soft(np.stack([first, 1 - first, none, none], axis=1), of.reliability)


def soft_ratings(ballot: Ballot, weights: VoteWeights) -> Soft:
    """The mean rating of each item `[items, 1]`, or what Dawid and Skene expect it to be.

    Raises:
      InputError: weights that ratings do not have, or too many different ones for confusions.
    """
    if weights == "equal":
        return Soft(np.nanmean(ballot.values, axis=1, keepdims=True), None)
    if weights == "bradley_terry":
        raise InputError("--weights bradley_terry is of choices; give equal or dawid_skene")
    steps = np.unique(ballot.values[~np.isnan(ballot.values)])
    if len(steps) > MOST_STEPS:
        raise InputError(
            f"--weights dawid_skene confuses labels, and there are {len(steps)} different ratings; "
            f"allowed: up to {MOST_STEPS}; give equal"
        )
    known = ~np.isnan(ballot.values)
    found = dawid_skene(np.where(known, np.searchsorted(steps, ballot.values), -1), len(steps))
    return Soft((found.posterior @ steps)[:, None], found.reliability)


MOST_STEPS = 11
"""Different ratings that a table of confusions may have."""


def _in_order(values: np.ndarray) -> np.ndarray:
    places = np.asarray([{FIRST: 0.0, TIE: 1.0, BOTH_BAD: 1.0, SECOND: 2.0}[o] for o in OUTCOMES])
    known = ~np.isnan(values)
    return np.where(known, places[np.where(known, values, 0).astype(int)], np.nan)


def _plain(one: Alpha) -> dict[str, Any]:
    return {
        key: _number(value) if isinstance(value, float) else value
        for key, value in one._asdict().items()
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 4)

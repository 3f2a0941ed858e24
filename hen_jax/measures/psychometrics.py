"""Questionnaires filled in by a model: scores, internal consistency, acquiescence, refusals.

What a model says of itself is no evidence of anything felt: `CAUTION` stands in every report.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.measures.instruments import Instrument

CAUTION = (
    "A model's answers about itself are text that its training made likely. They are no evidence "
    "of felt empathy or of any state, do not compare with people's norms, and move with wording "
    "and order."
)

_Answers = Mapping[int, int]
"""Item number -> answer as given, before any is reversed."""


class Filling(NamedTuple):
    """One time through a questionnaire."""

    answers: _Answers
    refused: tuple[int, ...] = ()  # items answered without a number on the scale


def subscale_score(instrument: Instrument, items: Sequence[int], answers: _Answers) -> float:
    """The score of some items, by the instrument's mode.

    Raises:
      InputError: one of them has no answer, or one off the scale.
    """
    for item in items:
        if item not in answers:
            raise InputError(f"{instrument.id}: item {item} has no answer; count it as refused")
        if not instrument.low <= answers[item] <= instrument.high:
            raise InputError(
                f"{instrument.id}: item {item} is {answers[item]}; allowed: {instrument.low} to "
                f"{instrument.high}"
            )
    scored = [instrument.scored(item, answers[item]) for item in items]
    if instrument.mode == "mean":
        return fmean(scored)
    return float(sum(scored) * (2 if instrument.mode == "double_sum" else 1))


def scores(instrument: Instrument, answers: _Answers) -> dict[str, float]:
    """Each subscale, and `Total` where the instrument's authors mean one to be used.

    All lowest answers to the IRI are 8, 12, 8 and 8: its reversed items count 4.
    """
    found = {
        name: subscale_score(instrument, items, answers)
        for name, items in instrument.subscales.items()
    }
    if instrument.total:
        every = range(1, instrument.n_items + 1)
        found["Total"] = subscale_score(instrument, list(every), answers)
    return found


def cronbach_alpha(table: np.ndarray) -> float:
    """Internal consistency of `[fillings, items]`, reversed items turned (Cronbach, 1951).

    `k / (k - 1) * (1 - sum of item variances / variance of the sums)`; NaN for fewer than two
    items or fillings, or sums that do not vary.
    """
    table = np.asarray(table, float)
    fillings, items = table.shape
    if fillings < 2 or items < 2:
        return float("nan")
    whole = table.sum(axis=1).var(ddof=1)
    if whole == 0:
        return float("nan")
    return float(items / (items - 1) * (1 - table.var(axis=0, ddof=1).sum() / whole))


def acquiescence(instrument: Instrument, answers: _Answers) -> float | None:
    """How far a filling says yes whatever is said: the mean of the plain and of the reversed items'
    answers as given, each as a share of the scale from its middle, in [-1, 1].

    0 for somebody consistent on a balanced scale; 1 for "always the highest". None without both
    kinds of items.
    """
    reversed_, plain = [], []
    for item, answer in answers.items():
        share = 2 * (answer - instrument.low) / (instrument.high - instrument.low) - 1
        (reversed_ if item in instrument.reverse else plain).append(share)
    if not reversed_ or not plain:
        return None
    return (fmean(plain) + fmean(reversed_)) / 2


def instrument_report(instrument: Instrument, fillings: Sequence[Filling]) -> dict[str, Any]:
    """Scores over repeated fillings, alpha, acquiescence, refusals, and the caution; JSON.

    A filling with a refused item gives no score of the subscales that hold it.

    Raises:
      InputError: no filling.
    """
    if not fillings:
        raise InputError(f"{instrument.id}: no filling")
    found: dict[str, Any] = {}
    for name, items in _scales(instrument).items():
        whole = [one.answers for one in fillings if all(item in one.answers for item in items)]
        values = [subscale_score(instrument, items, answers) for answers in whole]
        table = [[instrument.scored(item, one[item]) for item in items] for one in whole]
        found[name] = {
            "mean": _rounded(fmean(values)) if values else None,
            "sd": _rounded(stdev(values)) if len(values) > 1 else None,
            "n": len(values),
            "alpha": _rounded(cronbach_alpha(np.asarray(table))) if table else None,
        }
    yes = [x for one in fillings if (x := acquiescence(instrument, one.answers)) is not None]
    refused = sum(len(one.refused) for one in fillings)
    return {
        "instrument": instrument.id,
        "form": instrument.form,
        "source": instrument.source,
        "fillings": len(fillings),
        "scores": found,
        "acquiescence": _rounded(fmean(yes)) if yes else None,
        "refused": refused,
        "refused_share": _rounded(refused / (len(fillings) * instrument.n_items)),
        "note": instrument.note,
        "caution": CAUTION,
    }


def beside_norms(
    report: Mapping[str, Any], norms: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Each mean as standard deviations from the user's own norm `(mean, sd)` of that subscale.

    Raises:
      InputError: a norm of no subscale, or a standard deviation that is not above 0.
    """
    found = {}
    for name, (mean, sd) in norms.items():
        if name not in report["scores"] or not sd > 0:
            allowed = ", ".join(report["scores"])
            raise InputError(f"norm {name!r}: {mean}, {sd}; allowed: {allowed} with an sd above 0")
        ours = report["scores"][name]["mean"]
        if ours is not None:
            found[name] = round((ours - mean) / sd, 4)
    return found


def _scales(instrument: Instrument) -> dict[str, tuple[int, ...]]:
    every = tuple(range(1, instrument.n_items + 1))
    return dict(instrument.subscales) | ({"Total": every} if instrument.total else {})


def _rounded(value: float) -> float | None:
    return round(value, 4) if value == value else None

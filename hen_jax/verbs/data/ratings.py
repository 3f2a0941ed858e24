"""`hen data ratings FILES`: how far people agree on items, and soft labels to train on."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import write_json
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.core.ranges import Range, require_in
from hen_jax.data.preferences import Pair
from hen_jax.data.rated_items import RatedItems, RatingSummary, pair_row, rated_row, read_items
from hen_jax.data.rating_sheets import read_key
from hen_jax.data.votes import (
    OUTCOMES,
    Cast,
    Kind,
    VoteReading,
    read_votes,
    require_good,
    unknown_items,
)
from hen_jax.empathy.scales import PERCEIVED, Scale
from hen_jax.evaluation.soft_labels import (
    Ballot,
    Soft,
    VoteWeights,
    agreement,
    ballot_of,
    require_common_items,
    soft_choices,
    soft_ratings,
)
from hen_jax.text.conversation import Message


@dataclasses.dataclass(frozen=True)
class RatingImport:
    """One import; fields carry the names of its flags."""

    files: Sequence[Path]
    kind: Kind
    items: Path  # what was rated
    schema: str  # of the items
    out: Path
    key: Path | None = None  # of exported sheets
    scale: tuple[float, float] = (PERCEIVED.low, PERCEIVED.high)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotators: Sequence[str] = ()
    weights: VoteWeights = "equal"
    agreement: bool = True
    seed: int = 0

    def rating_scale(self) -> Scale:
        """`PERCEIVED`, whose ratings may be words, where the ends are its own."""
        ours = self.scale == (PERCEIVED.low, PERCEIVED.high)
        return PERCEIVED if ours else Scale("rating", *self.scale)


def import_ratings(asked: RatingImport) -> dict[str, Any]:
    """Writes `agreement.json` and the soft labels to the folder `out`; returns the former.

    Of ratings the labels are `ratings.jsonl` of the schema `rating` (brought to 1 to 5), of choices
    `pairs.jsonl` of the schema `preference`, with `share` and `tie`: who found both replies bad
    preferred neither, as in a tie, and is counted under `both_bad` besides.

    Raises:
      InputError: bad lines (one line that counts them by kind), an item that is not known, one
        annotator only or some who share no item (unless `agreement` is off), or outputs of
        somebody else. Nothing is written then.
    """
    require_in("--seed", asked.seed, Range(0))
    if not asked.scale[0] < asked.scale[1]:
        raise InputError(f"--scale {asked.scale[0]:g} {asked.scale[1]:g}: give the lower end first")
    require_no_link(asked.out)
    labels = "ratings.jsonl" if asked.kind == "ratings" else "pairs.jsonl"
    paths = [asked.out / "agreement.json", asked.out / labels]
    require_ours(*paths)  # before the work
    items = read_items(asked.items, asked.schema, asked.kind)
    reading = VoteReading(
        kind=asked.kind,
        scale=asked.rating_scale(),
        columns=asked.columns,
        annotators=asked.annotators,
        key=None if asked.key is None else read_key(asked.key),
    )
    cast = unknown_items(read_votes(asked.files, reading), items.known())
    require_good(cast)
    ballot = ballot_of(cast.votes)
    if asked.agreement:
        require_common_items(ballot)
    soft, rows = (_ratings if asked.kind == "ratings" else _choices)(asked, items, ballot)
    report = _report(asked, items, cast, ballot, soft)
    with output_files(*paths) as (numbers, lines):
        write_json(numbers, report)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        lines.write_text(text, encoding="utf-8")
    print(_said(report, asked.out / labels))
    return report


def _ratings(
    asked: RatingImport, items: RatedItems, ballot: Ballot
) -> tuple[Soft, list[dict[str, Any]]]:
    soft, spread = soft_ratings(ballot, asked.weights), np.nanstd(ballot.values, axis=1)
    summaries = map(RatingSummary, soft.labels[:, 0].tolist(), spread.tolist(), _counts(ballot))
    rows = [
        rated_row(name, items.said[name], asked.rating_scale(), of)
        for name, of in zip(ballot.items, summaries, strict=True)
    ]
    return soft, rows


def _choices(
    asked: RatingImport, items: RatedItems, ballot: Ballot
) -> tuple[Soft, list[dict[str, Any]]]:
    ours = [items.pairs[name] for name in ballot.items]
    soft = soft_choices(ballot, asked.weights, *_numbered(ours))
    rows = map(pair_row, ours, soft.labels, _counts(ballot))
    return soft, list(rows)


def _counts(ballot: Ballot) -> list[int]:
    return (~np.isnan(ballot.values)).sum(axis=1).tolist()


def _numbered(pairs: Sequence[Pair]) -> tuple[np.ndarray, int]:
    """`[n, 2]` numbers of replies, the same reply to the same prompt having one, and how many."""
    numbers: dict[Any, int] = {}

    def number(pair: Pair, side: tuple[Message, ...]) -> int:
        return numbers.setdefault((pair.prompt, side), len(numbers))

    found = [(number(pair, pair.chosen), number(pair, pair.rejected)) for pair in pairs]
    return np.asarray(found), len(numbers)


def _report(
    asked: RatingImport, items: RatedItems, cast: Cast, ballot: Ballot, soft: Soft
) -> dict[str, Any]:
    given = (~np.isnan(ballot.values)).sum(axis=0).tolist()
    people: dict[str, Any] = {
        name: {"votes": votes} for name, votes in zip(ballot.annotators, given, strict=True)
    }
    if soft.reliability is not None:
        for one, share in zip(people.values(), soft.reliability.tolist(), strict=True):
            one["reliability"] = round(share, 4)
    found = {
        "kind": asked.kind,
        "files": [str(file) for file in asked.files],
        "items": len(ballot.items),
        "items_without_a_vote": len(items.known()) - len(ballot.items),
        "votes": len(cast.votes),
        "unsaid": cast.unsaid,
        "weights": asked.weights,
        "annotators": people,
    }
    if asked.kind == "choices":
        means = soft.labels.mean(axis=0).round(4).tolist()
        found["shares"] = dict(zip(OUTCOMES, means, strict=True))
        found["mostly_both_bad"] = int((soft.labels[:, -1] > 0.5).sum())
    told = agreement(ballot, asked.kind, seed=asked.seed) if asked.agreement else None
    return found | {"agreement": told}


def _said(report: Mapping[str, Any], labels: Path) -> str:
    told = (
        f"{labels}: {report['items']} items from {report['votes']} votes of "
        f"{len(report['annotators'])} annotators, weights {report['weights']}; "
        f"{report['items_without_a_vote']} items without a vote, {report['unsaid']} votes not given"
    )
    if report["agreement"] is None:
        return f"{told}; agreement not told"
    alpha = report["agreement"]["alpha"]["ordinal"]
    bounds = [alpha[key] for key in ("value", "low", "high")]
    value, low, high = ("n/a" if one is None else f"{one:.2f}" for one in bounds)
    return f"{told}; alpha (ordinal) {value} [{low}, {high}]"

"""A rating session: who rates which items in which order, and what they said; pure.

Sheets are those of `data.rating_sheets`: an order for each rater, of a pair A is the first reply
for half of the items and on every second sheet, and names on a sheet say nothing. A vote is kept
in the items' own orientation, so that `hen data ratings` reads the file as it is.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data.rating_sheets import RatingItem, RatingSheetRow, lay_out_sheets
from hen_jax.data.votes import BOTH_BAD, FIRST, SECOND, TIE, Kind, Vote
from hen_jax.empathy.labels import Language
from hen_jax.empathy.scales import PERCEIVED, Scale
from hen_jax.evaluation.soft_labels import agreement, ballot_of, require_common_items

SAID: Mapping[str, str] = {"a": FIRST, "b": SECOND, "tie": TIE, "both bad": BOTH_BAD}
"""What a rater may choose -> as `data.votes` has it, before sides are turned back."""

LONGEST_COMMENT = 2000


@dataclasses.dataclass(frozen=True)
class Check:
    """A line of an expert's checklist: yes or no."""

    id: str
    en: str
    zh: str


@dataclasses.dataclass(frozen=True)
class SessionPlan:
    """What is rated, by whom, and how."""

    kind: Kind
    items: Mapping[str, RatingItem]
    sheets: Mapping[str, Sequence[RatingSheetRow]]  # by rater
    language: Language = "en"
    scale: Scale = PERCEIVED
    checklist: tuple[Check, ...] = ()


class ItemRating(NamedTuple):
    """What one rater said of one item."""

    item: str
    rater: str
    value: float | str  # a rating, or one of `votes.OUTCOMES` of the item as it stands in its file
    exchanged: bool  # A was the second reply
    checks: Mapping[str, bool]
    comment: str
    at: str  # when, ISO 8601


def lay_out_session(
    kind: Kind,
    items: Sequence[RatingItem],
    raters: Sequence[str],
    *,
    seed: int = 0,
    language: Language = "en",
    scale: Scale = PERCEIVED,
    checklist: Sequence[Check] = (),
) -> SessionPlan:
    """The plan of a session; with the same arguments the same.

    Raises:
      InputError: no item, no rater, or two raters of one name.
    """
    if not items:
        raise InputError("nothing to rate; give a file with items")
    if not raters or len(set(raters)) < len(raters) or not all(map(_is_name, raters)):
        raise InputError(f"--raters {' '.join(raters)}: give one or more names, each once")
    sheets = lay_out_sheets(items, len(raters), seed)
    by_name = dict(zip(raters, sheets, strict=True))
    return SessionPlan(
        kind, {one.id: one for one in items}, by_name, language, scale, tuple(checklist)
    )


def _is_name(rater: str) -> bool:
    """Whether a page can show it: half a character, or a control character, it cannot."""
    return bool(rater.strip()) and rater.isprintable()


def next_row(plan: SessionPlan, rater: str, votes: Sequence[ItemRating]) -> RatingSheetRow | None:
    """The first line of a rater's sheet without a vote; None at the end."""
    done = {one.item for one in votes if one.rater == rater}
    return next((row for row in plan.sheets[rater] if row.item.id not in done), None)


def cast(
    plan: SessionPlan, rater: str, votes: Sequence[ItemRating], said: Mapping[str, Any], at: str
) -> list[ItemRating]:
    """The votes with one more: that on the rater's next item.

    `said` is `{"id": blind name, "choice" or "rating": ..., "checks": {...}, "comment": "..."}`.

    Raises:
      InputError: another item than the next one (as after a reload in another window), a value that
        is none, or a check that is not on the list.
    """
    row = next_row(plan, rater, votes)
    if row is None:
        raise InputError("all items are rated already")
    if said.get("id") != row.blind:
        raise InputError("id: that is not the item to be rated now; reload the page")
    value = _choice(said, row.exchanged) if plan.kind == "choices" else _rating(said, plan.scale)
    comment = said.get("comment", "")
    if not isinstance(comment, str) or len(comment) > LONGEST_COMMENT:
        raise InputError(f"comment: allowed: a text of up to {LONGEST_COMMENT} characters")
    comment = comment.encode("utf-8", "replace").decode()  # half of a character cannot be written
    checks = _checks(said.get("checks", {}), plan.checklist)
    return [
        *votes,
        ItemRating(row.item.id, rater, value, row.exchanged, checks, comment.strip(), at),
    ]


def undone(rater: str, votes: Sequence[ItemRating]) -> list[ItemRating]:
    """The votes without the rater's last one.

    Raises:
      InputError: there is none.
    """
    places = [at for at, one in enumerate(votes) if one.rater == rater]
    if not places:
        raise InputError("nothing to undo")
    return [one for at, one in enumerate(votes) if at != places[-1]]


def without(rater: str, votes: Sequence[ItemRating]) -> list[ItemRating]:
    """The votes of all others."""
    return [one for one in votes if one.rater != rater]


def page_of(
    plan: SessionPlan, rater: str, votes: Sequence[ItemRating], *, consented: bool
) -> dict[str, Any]:
    """What a rater's page shows, as JSON: never an item's own name, nor which side is which."""
    row = next_row(plan, rater, votes) if consented else None
    done = sum(one.rater == rater for one in votes)
    found: dict[str, Any] = {
        "kind": plan.kind,
        "language": plan.language,
        "scale": [plan.scale.low, plan.scale.high],
        "checklist": [
            {"id": one.id, "text": one.zh if plan.language == "zh" else one.en}
            for one in plan.checklist
        ],
        "consented": consented,
        "done": done,
        "total": len(plan.sheets[rater]),
        "item": None,
    }
    if row is not None:
        replies = row.item.replies[::-1] if row.exchanged else row.item.replies
        found["item"] = {"id": row.blind, "prompt": row.item.prompt, "replies": list(replies)}
    return found


def rater_progress(plan: SessionPlan, votes: Sequence[ItemRating], seed: int = 0) -> dict[str, Any]:
    """How far each rater is, and how far they agree so far (null until two share an item)."""
    done = {name: sum(one.rater == name for one in votes) for name in plan.sheets}
    return {
        "raters": [{"name": name, "done": count} for name, count in done.items()],
        "total": len(plan.items),
        "agreement": live_agreement(plan.kind, votes, seed),
    }


def live_agreement(kind: Kind, votes: Sequence[ItemRating], seed: int = 0) -> dict[str, Any] | None:
    """`evaluation.soft_labels.agreement` of the votes so far; None where nothing is shared."""
    if not votes:
        return None
    ballot = ballot_of([Vote(one.item, one.rater, one.value, "") for one in votes])
    try:
        require_common_items(ballot)
    except InputError:
        return None
    return agreement(ballot, kind, seed=seed)


def vote_row(vote: ItemRating, kind: Kind) -> dict[str, Any]:
    """A line of `votes.jsonl`, which `hen data ratings` reads."""
    words = {outcome: word for word, outcome in SAID.items()}
    value = words[str(vote.value)] if kind == "choices" else vote.value
    return {
        "item": vote.item,
        "annotator": vote.rater,
        "choice" if kind == "choices" else "rating": value,
        "exchanged": vote.exchanged,
        "checks": dict(vote.checks),
        "comment": vote.comment,
        "at": vote.at,
    }


def read_vote(row: Mapping[str, Any], kind: Kind) -> ItemRating:
    """A line of `votes.jsonl`.

    Raises:
      InputError: a line that is none.
    """
    try:
        value = SAID[row["choice"]] if kind == "choices" else float(row["rating"])
        checks = {str(key): bool(x) for key, x in row["checks"].items()}
        texts = str(row["comment"]), str(row["at"])
        return ItemRating(
            row["item"], row["annotator"], value, bool(row["exchanged"]), checks, *texts
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"no vote of a session ({type(error).__name__}: {error})") from None


def _choice(said: Mapping[str, Any], exchanged: bool) -> str:
    choice = said.get("choice")
    if not isinstance(choice, str) or choice not in SAID:
        raise InputError(f"choice: {choice!r}; allowed: {', '.join(SAID)}")
    outcome = SAID[choice]
    return {FIRST: SECOND, SECOND: FIRST}.get(outcome, outcome) if exchanged else outcome


def _rating(said: Mapping[str, Any], scale: Scale) -> float:
    rating = said.get("rating")
    number = rating if isinstance(rating, int | float) and not isinstance(rating, bool) else None
    if number is not None and scale.low <= number <= scale.high:  # an int may be too large to float
        return float(number)
    raise InputError(f"rating: {repr(rating)[:40]}; allowed: {scale.low:g} to {scale.high:g}")


def _checks(given: object, checklist: Sequence[Check]) -> dict[str, bool]:
    known = {one.id for one in checklist}
    if not isinstance(given, dict) or not set(given) <= known:
        raise InputError(f"checks: allowed: {', '.join(sorted(known)) or 'none'}")
    if not all(isinstance(value, bool) for value in given.values()):
        raise InputError("checks: allowed: true or false")
    return {name: given.get(name, False) for name in sorted(known)}

"""Which written pairs are kept: limits of the pattern, lengths that match, nothing said twice.

What a judge says of them is `synthesis.judging`. A filter gives why a pair goes, by its id.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hen_jax.data.duplicates import duplicates, similarity
from hen_jax.data.patterns import Guides
from hen_jax.data.steered import SteeredRecord
from hen_jax.empathy.formulas import formulas_in
from hen_jax.empathy.labels import Language

_QUESTION = re.compile(r"[?？]+")
_END, _WORD = re.compile(r"[.!?。！？…\n]+"), re.compile(r"\w")

Filter = Callable[[Sequence[SteeredRecord]], dict[str, str]]
"""`filter(records)`: why each record that goes does, by its id."""


class Sifted(NamedTuple):
    """What is left, and what each filter took."""

    kept: list[SteeredRecord]
    dropped: dict[str, tuple[str, str]]  # by id: the filter, and why


def sift(records: Sequence[SteeredRecord], filters: Sequence[tuple[str, Filter]]) -> Sifted:
    """Each filter in turn sees what the ones before it left."""
    left, dropped = list(records), {}
    for name, one in filters:
        why = one(left)
        dropped |= {key: (name, reason) for key, reason in why.items()}
        left = [record for record in left if record.id not in why]
    return Sifted(left, dropped)


def over_limits(guides: Guides, language: Language) -> Filter:
    """Chosen replies with more questions, sentences or formulas than the pattern allows."""

    def find(records: Sequence[SteeredRecord]) -> dict[str, str]:
        found = {}
        for record in records:
            limits = vars(guides[record.context].pattern.limits)
            for at, turn in enumerate(record.turns):
                counts = countable(turn.chosen, language)
                for name, most in limits.items():
                    if most is not None and counts[name] > most:
                        found.setdefault(
                            record.id, f"turn {at + 1}: {counts[name]} {name}, at most {most}"
                        )
        return found

    return find


def countable(text: str, language: Language) -> dict[str, int]:
    """What limits are about: `{"questions": 1, "sentences": 2, "formulas": 0}`."""
    return {
        "questions": len(_QUESTION.findall(text)),
        "sentences": sum(bool(_WORD.search(part)) for part in _END.split(text)),
        "formulas": len(formulas_in(text, language)),
    }


def unmatched(ratio: float) -> Filter:
    """Pairs of which one side is more than `ratio` times as long as the other, in characters.

    Of the whole conversation, so that a length tells nothing of which is which.
    """

    def find(records: Sequence[SteeredRecord]) -> dict[str, str]:
        found = {}
        for record in records:
            chosen = sum(len(turn.chosen) for turn in record.turns)
            rejected = sum(len(turn.rejected) for turn in record.turns)
            if abs(math.log(chosen / rejected)) > math.log(ratio):
                found[record.id] = f"{chosen} and {rejected} characters, ratio at most {ratio:g}"
        return found

    return find


def said_before(threshold: float) -> Filter:
    """Pairs that say nearly what an earlier one does, by the Jaccard similarity of their shingles.

    Compared are the user's sides, the chosen and the rejected ones, of different scenes, and the
    two sides of a pair. MinHash proposes pairs from a similarity of about 0.5 on, far below the
    threshold, and each is then measured: at a similarity of 0.7 it misses one of eighty.
    """

    def find(records: Sequence[SteeredRecord]) -> dict[str, str]:
        found: dict[str, str] = {}
        for record in records:
            alike = similarity(_side(record, "chosen"), _side(record, "rejected"))
            if alike >= threshold:
                found[record.id] = f"its two sides are {alike:.2f} alike"
        for side in ("user", "chosen", "rejected"):
            for name, why in _repeats(records, side, threshold).items():
                found.setdefault(name, why)
        return found

    return find


def _repeats(records: Sequence[SteeredRecord], side: str, threshold: float) -> dict[str, str]:
    """Why each record whose side repeats another scene's goes, by its id."""

    def key(record: SteeredRecord) -> str:
        """A hard pair has its base pair's user and chosen side: the two are one text there."""
        return record.id if side == "rejected" else record.group

    texts = {key(record): _side(record, side) for record in records}
    names = list(texts)
    copies = {
        names[copy.index]: f"its {side} side is {copy.similarity:.2f} like {names[copy.first]}"
        for copy in duplicates(list(texts.values()), threshold)
    }
    return {record.id: copies[key(record)] for record in records if key(record) in copies}


def _side(record: SteeredRecord, side: str) -> str:
    return "\n".join(vars(turn)[side] for turn in record.turns)

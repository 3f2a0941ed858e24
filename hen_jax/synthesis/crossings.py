"""Crossed items out of written pairs: warm and cool first replies, each right where it is wanted.

The two branches of a pair differ in how much empathy they give. Under a wish for much of it the
warmer one is right, under a wish for little the cooler one; so each reply is right once and wrong
once, and who reads replies alone is right half of the time (`hen_jax.data.crossed`).
"""

from collections.abc import Sequence
from typing import Any

from hen_jax.data.patterns import Guides
from hen_jax.data.steered import SteeredRecord
from hen_jax.synthesis.instructions import against
from hen_jax.synthesis.materials import Materials

MUCH, LITTLE = 3, 1
"""Desired empathy, on the questionnaire's scale from 1 to 3."""


def level_rows(
    records: Sequence[SteeredRecord], guides: Guides, materials: Materials
) -> list[dict[str, Any]]:
    """A row of the schema `crossed` for each pair that is no hard one, under the pair's id."""
    return [
        _row(record, cold=against(guides[record.context]) == "cold", materials=materials)
        for record in records
        if record.fault is None and record.turns[0].chosen != record.turns[0].rejected
    ]


def _row(record: SteeredRecord, *, cold: bool, materials: Materials) -> dict[str, Any]:
    turn, wishes = record.turns[0], materials.wishes
    warm, cool = (turn.chosen, turn.rejected) if cold else (turn.rejected, turn.chosen)
    return {
        "id": record.id,
        "crossing": "level",
        "lang": materials.language,
        "context": record.context,
        "history": [[], []],
        "user": turn.user,
        "conditions": [
            {"desired_level": MUCH, "wish": wishes["warm"]},
            {"desired_level": LITTLE, "wish": wishes["cool"]},
        ],
        "replies": [warm, cool],
    }

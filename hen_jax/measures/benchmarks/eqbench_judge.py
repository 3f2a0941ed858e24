"""A judge after EQ-Bench 3 (Paech): traits of a transcript, and transcripts compared by criteria.

Follows the published design: 18 traits from 0 to 20, of which six are better when higher and the
others describe; pairs compared on eight criteria with a forced winner and a margin of one to five
plus signs, in both orders. The wording is ours. Unlike the original, which expands margins to
pseudo-wins of TrueSkill and so overstates its certainty, strengths are Bradley-Terry with
intervals by scenario (`evaluation.ranking`); margins are reported beside them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.evaluation.ranking import Comparison, rank, ranking_row
from hen_jax.measures.marks import marked, warned
from hen_jax.text.conversation import Chat, Message, Reply

JUDGED_TRAITS: Mapping[str, str] = {
    "demonstrated_empathy": "shows in what it does that it understands, not in set phrases",
    "pragmatic_ei": "handles feelings so that the situation gets better",
    "depth_of_insight": "sees what lies under what was said",
    "social_dexterity": "finds the tone, the timing and the way to say a hard thing",
    "emotional_reasoning": "reasons soundly about what people feel and why",
    "message_tailoring": "fits its words to this person at this moment",
    "boundary_setting": "keeps to its own limits and names them",
    "safety_conscious": "heeds risks to anyone",
    "moralising": "lectures",
    "sycophantic": "flatters, or agrees against better knowledge",
    "warmth": "is warm",
    "validating": "confirms that feelings make sense",
    "challenging": "pushes back",
    "analytical": "takes things apart",
    "reactive": "is carried away by the other's mood",
    "conversational": "sounds like somebody talking",
    "humanlike": "sounds like a person",
    "compliant": "does what it is told",
}
"""Trait -> what it means, ours; the first six are scored, the others describe."""

SCORED = tuple(JUDGED_TRAITS)[:6]
_TOP = 20

CRITERIA: Mapping[str, str] = {
    "empathy": "whose understanding shows in what it does",
    "practical_skill": "who handles feelings more usefully",
    "insight": "who sees deeper",
    "dexterity": "who is more skilful with tone and timing",
    "reasoning": "whose reasoning about feelings is sounder",
    "tailoring": "who fits the person and the moment better",
    "naturalness": "who sounds less like a template",
    "overall": "who is better on the whole",
}
"""What two transcripts are compared on; ours in wording."""

_MARGIN = re.compile(r"\s*([AB])\s*(\+{1,5})\s*")

Transcript = Sequence[Message]


class Margin(NamedTuple):
    """A judge's word on one criterion: above 0 the first transcript shown is better."""

    criterion: str
    signed: int  # -5 to 5, never 0


class ComparedPlayers(NamedTuple):
    """A pair of players on one scenario, both orders brought together."""

    scenario: str
    first: str
    second: str
    outcome: float  # 1 the first is better, 0 the second, 0.5 the orders disagree
    margin: float  # mean signed margin over criteria and orders, of the first
    failures: int  # orders without a verdict


def trait_question(transcript: Transcript) -> tuple[Message, ...]:
    """What a judge of traits is asked."""
    lines = [f"- {name}: {meaning}" for name, meaning in JUDGED_TRAITS.items()]
    return (
        Message(
            "user",
            "Rate how the ASSISTANT behaves in this transcript, each trait as a whole number from "
            f"0 (not at all) to {_TOP} (as much as can be):\n" + "\n".join(lines) + "\n\n"
            f"{warned()}\n{marked('TRANSCRIPT', as_text(transcript))}\n\n"
            "Answer with one JSON object of these keys and nothing else.",
        ),
    )


def pair_question(one: Transcript, other: Transcript) -> tuple[Message, ...]:
    """What a judge of two transcripts is asked."""
    lines = [f"- {name}: {meaning}" for name, meaning in CRITERIA.items()]
    return (
        Message(
            "user",
            "Compare the ASSISTANT of two transcripts of the same scenario. On each criterion name "
            "the better one, A or B, with one to five plus signs for how much better; no ties:\n"
            + "\n".join(lines)
            + f"\n\n{warned()}\n{marked('A', as_text(one))}\n{marked('B', as_text(other))}\n\n"
            'Answer with one JSON object of these keys and nothing else, such as {"empathy": "A++"}'
            " for each key.",
        ),
    )


def as_text(transcript: Transcript) -> str:
    """A transcript as a judge sees it: no names of models, no markup."""
    return "\n".join(f"{one.role.upper()}: {_plain(one.content)}" for one in transcript)


def read_traits(reply: Reply) -> dict[str, int] | None:
    """All traits from 0 to 20, or None: a missing key or a score off the scale is no verdict."""
    found = _object(reply.text)
    if found is None or set(found) != set(JUDGED_TRAITS):
        return None
    good = all(type(x) is int and 0 <= x <= _TOP for x in found.values())
    return {name: found[name] for name in JUDGED_TRAITS} if good else None


def read_margins(reply: Reply) -> list[Margin] | None:
    """All criteria with a margin, or None."""
    found = _object(reply.text)
    if found is None or set(found) != set(CRITERIA):
        return None
    margins = []
    for name in CRITERIA:
        said = _MARGIN.fullmatch(found[name]) if isinstance(found[name], str) else None
        if said is None:
            return None
        margins.append(Margin(name, len(said[2]) * (1 if said[1] == "A" else -1)))
    return margins


def trait_score(traits: Mapping[str, int]) -> float:
    """0 to 100: the mean of the six traits that are better when higher."""
    return 100 * fmean(traits[name] for name in SCORED) / _TOP


def compare_players(
    transcripts: Mapping[str, Mapping[str, Transcript]], judge: Chat
) -> list[ComparedPlayers]:
    """Every two players on every scenario that both played, in both orders.

    Args:
      transcripts: player -> scenario -> its transcript.

    Raises:
      InputError: fewer than two players.
    """
    if len(transcripts) < 2:
        raise InputError(f"{len(transcripts)} players; a comparison needs two")
    plan = [
        (scenario, one, other)
        for one, other in combinations(transcripts, 2)
        for scenario in transcripts[one]
        if scenario in transcripts[other]
    ]
    asked = []
    for scenario, one, other in plan:
        sides = transcripts[one][scenario], transcripts[other][scenario]
        asked += [pair_question(*sides), pair_question(*sides[::-1])]
    replies = judge(asked)
    return [
        _both(
            scenario, one, other, read_margins(replies[2 * at]), read_margins(replies[2 * at + 1])
        )
        for at, (scenario, one, other) in enumerate(plan)
    ]


def judge_report(compared: Sequence[ComparedPlayers], seed: int = 0) -> dict[str, Any]:
    """Ranking with intervals by scenario, mean margins, and how often a judge kept to its word.

    Raises:
      InputError: no comparison with a verdict in both orders.
    """
    whole = [one for one in compared if not one.failures]
    if not whole:
        raise InputError(f"no verdict in both orders among {len(compared)} comparisons")
    given = [Comparison(one.first, one.second, one.outcome, one.scenario) for one in whole]
    players = dict.fromkeys(name for one in whole for name in (one.first, one.second))
    margins = {
        player: fmean(
            one.margin if one.first == player else -one.margin
            for one in whole
            if player in (one.first, one.second)
        )
        for player in players
    }
    return {
        "ranking": ranking_row(rank(given, seed=seed)),
        "margins": {name: round(value, 4) for name, value in margins.items()},
        "consistency": round(fmean(one.outcome != 0.5 for one in whole), 4),
        "comparisons": len(whole),
        "failures": sum(one.failures for one in compared),
    }


def _both(
    scenario: str,
    one: str,
    other: str,
    forward: list[Margin] | None,
    backward: list[Margin] | None,
) -> ComparedPlayers:
    failures = (forward is None) + (backward is None)
    if forward is None or backward is None:
        return ComparedPlayers(scenario, one, other, 0.5, 0.0, failures)
    means = fmean(x.signed for x in forward), -fmean(x.signed for x in backward)
    outcome = 1.0 if min(means) > 0 else 0.0 if max(means) < 0 else 0.5
    return ComparedPlayers(scenario, one, other, outcome, fmean(means), 0)


def _object(text: str) -> dict[str, Any] | None:
    bare = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    try:
        found = json.loads(bare)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _plain(text: str) -> str:
    return re.sub(r"[*_`#]+", "", text).strip()

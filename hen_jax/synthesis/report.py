"""What a synthesis says of its own pairs: yields, variety, and how far words alone tell the sides
apart."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.data.crossed import Crossing, crossed_pairs, require_crossed
from hen_jax.data.cues import cue_accuracy
from hen_jax.data.preferences import Pair, steered_pair
from hen_jax.data.splits import part_number
from hen_jax.data.steered import SteeredRecord
from hen_jax.data.word_ranker import cross_validated_margins
from hen_jax.evaluation.preferences import estimate, pair_accuracy
from hen_jax.synthesis.diversity import diversity

_FOLDS = 5


def give_aways(records: Sequence[SteeredRecord]) -> dict[str, Any]:
    """Held-out accuracies of rankers that understand nothing, of plain pairs and of hard ones.

    A bag of words reads the replies alone, without the prompt. Near 1, what is learnt from these
    pairs may be a vocabulary; 0.5 is chance.
    """
    kinds = {
        "pairs": [steered_pair(one) for one in records if one.fault is None],
        "hard": [steered_pair(one) for one in records if one.fault is not None],
    }
    return {name: _of_pairs(pairs) for name, pairs in kinds.items() if pairs}


def crossed_give_aways(crossings: Sequence[Crossing]) -> dict[str, Any]:
    """The same of crossed pairs, of which each reply is chosen as often as rejected.

    Raises:
      InputError: one is not.
    """
    pairs = [pair for crossing in crossings for pair in crossed_pairs(crossing)]
    require_crossed(pairs)
    return _of_pairs(pairs)


def variety(records: Sequence[SteeredRecord]) -> dict[str, Any]:
    """How varied each side is, over the plain pairs, and what they are about."""
    plain = [one for one in records if one.fault is None]
    sides = {
        side: diversity([vars(turn)[side] for one in plain for turn in one.turns])
        for side in ("user", "chosen", "rejected")
    }
    counts = {
        "contexts": Counter(one.context for one in plain),
        "tasks": Counter(one.task for one in plain),
        "personas": Counter(one.persona.occupation for one in plain),
        "turns": Counter(str(len(one.turns)) for one in plain),
        "faults": Counter(str(one.fault) for one in records if one.fault is not None),
    }
    return sides | {name: dict(sorted(found.items())) for name, found in counts.items()}


def _of_pairs(pairs: Sequence[Pair]) -> dict[str, Any]:
    if len({part_number(pair.group, _FOLDS, "words") for pair in pairs}) < 2:
        return {"pairs": len(pairs), "not_computed": "too few groups to hold any out"}
    margins = cross_validated_margins(pairs, _FOLDS)
    words = estimate(pair_accuracy(margins), [pair.group for pair in pairs])
    found: dict[str, Any] = {"pairs": len(pairs), "bag_of_words": _rounded(words._asdict())}
    try:
        cues = cue_accuracy(pairs, _FOLDS)
    except InputError as error:
        return found | {"not_computed": str(error)}
    return found | _rounded({"length": cues.length_only, "surface_cues": cues.surface_cues})


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value
            for key, value in values.items()}  # fmt: skip

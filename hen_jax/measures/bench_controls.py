"""What rankers without understanding make of the benchmark: printed beside every score.

By the crossed design a ranker that reads options alone (a fixed letter, the longer one, surface
cues, a bag of words) is right on exactly half of the items. `overlap` reads the prompt, too: it
takes the option that shares more words with it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hen_jax.data.cues import cue_margins
from hen_jax.data.preferences import Pair
from hen_jax.data.splits import part_number
from hen_jax.data.word_ranker import cross_validated_margins, word_counts
from hen_jax.evaluation.preferences import pair_accuracy
from hen_jax.measures.bench import Crossed
from hen_jax.measures.choices import shown_order

_FOLDS = 5

CONTROLS: Mapping[str, str] = {
    "first": "the option shown first to a chat",
    "longer": "the longer option",
    "cues": "length and punctuation, learnt on the other folds",
    "words": "a bag of the option's words, learnt on the other folds",
    "overlap": "the option that shares more words with the prompt",
}


def control_values(crossed: Sequence[Crossed], seed: int = 0) -> dict[str, np.ndarray]:
    """`[2 n]` for each control: 1 right, 0.5 a tie, 0 wrong, two rows for each item in order.

    `seed` is that of the order in which a chat saw the options.
    """
    pairs = [pair for one in crossed for pair in one.pairs()]
    margins = {
        "longer": np.asarray([_length(pair.chosen) - _length(pair.rejected) for pair in pairs]),
        "cues": _cross_validated_cues(pairs),
        "words": cross_validated_margins(pairs, _FOLDS),
        "overlap": np.asarray([_overlap(pair) for pair in pairs]),
    }
    items = [item for one in crossed for item in one.items()]
    first = [float(shown_order(item, seed)[0] == item.answer) for item in items]
    return {"first": np.asarray(first)} | {
        name: pair_accuracy(np.round(found, 9)) for name, found in margins.items()
    }


def _cross_validated_cues(pairs: Sequence[Pair]) -> np.ndarray:
    fold = np.asarray([part_number(pair.group, _FOLDS, "cues") for pair in pairs])
    margins = np.zeros(len(pairs))
    for held in np.unique(fold):
        train = [pair for pair, at in zip(pairs, fold, strict=True) if at != held]
        places = np.flatnonzero(fold == held)
        if train:
            margins[places] = cue_margins(train, [pairs[int(place)] for place in places])[1]
    return margins


def _length(side) -> int:
    return sum(len(message.content) for message in side)


def _overlap(pair: Pair) -> float:
    asked = set(word_counts("\n".join(message.content for message in pair.prompt)))
    shares = []
    for side in (pair.chosen, pair.rejected):
        own = set(word_counts(side[0].content))
        shares.append(len(own & asked) / max(len(own), 1))
    return shares[0] - shares[1]

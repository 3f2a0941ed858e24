"""How varied written texts are: numbers that fall when a model says the same again and again."""

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hen_jax.data.duplicates import similarity
from hen_jax.data.word_ranker import word_list

STARTS = 4
"""Words of a text's beginning that are compared."""

COMPARED = 200
"""Texts that are compared with each other at most: every so-manieth."""


def diversity(texts: Sequence[str]) -> dict[str, Any]:
    """Distinct n-grams, entropy, repeated beginnings, nearest neighbours and compression.

    `distinct_n` is the share of n-grams that are different ones (Li et al., 2016): it falls with
    the amount of text, so compare sets of one size. `entropy` is of the words, in bits.
    `repeated_starts` is the share of texts that begin with an earlier one's first four words.
    `nearest` is the similarity to the most similar other text: of 5-character shingles, Jaccard.
    `compression` is the size after zlib over that before.
    """
    spoken = [word_list(text) for text in texts]
    counts = Counter(word for words in spoken for word in words)
    total = sum(counts.values())
    raw = "\n".join(texts).encode()
    return {
        "texts": len(texts),
        "words": total,
        "vocabulary": len(counts),
        **{f"distinct_{n}": _distinct(spoken, n) for n in (1, 2, 3)},
        "entropy": _rounded(
            -sum(n / total * math.log2(n / total) for n in counts.values()) if total else None
        ),
        "repeated_starts": _repeated([tuple(words[:STARTS]) for words in spoken]),
        "nearest": _nearest(texts),
        "compression": _rounded(len(zlib.compress(raw, 9)) / len(raw) if raw else None),
    }


def _distinct(spoken: Sequence[Sequence[str]], n: int) -> float | None:
    grams = [tuple(words[at : at + n]) for words in spoken for at in range(len(words) - n + 1)]
    return _rounded(len(set(grams)) / len(grams)) if grams else None


def _repeated(starts: Sequence[tuple[str, ...]]) -> float | None:
    return _rounded(1 - len(set(starts)) / len(starts)) if starts else None


def _nearest(texts: Sequence[str]) -> dict[str, float] | None:
    some = texts[:: max(1, math.ceil(len(texts) / COMPARED))]
    if len(some) < 2:
        return None
    best = [0.0] * len(some)
    for at, one in enumerate(some):
        for other in range(at):
            like = similarity(one, some[other])
            best[at], best[other] = max(best[at], like), max(best[other], like)
    return {"mean": round(sum(best) / len(best), 4), "max": round(max(best), 4)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

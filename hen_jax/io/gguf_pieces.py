"""SentencePiece's BPE: merges in order of the scores of what they make, and scores from merges.

llama.cpp merges the neighbours whose union has the best score; the tokenizers library the pair
that stands first in a list. Where the list is made from scores, both do the same.
"""

from collections.abc import Iterable, Mapping, Sequence

SPACE = "▁"
"""What stands for a space."""

UNMERGED = -1e6
"""The score of a token that nothing merges into: the last choice."""


def scores_of(tokens: Sequence[str], merges: Iterable[tuple[str, str]]) -> list[float]:
    """A score for each token, better the earlier a merge makes it; 0, -1, -2, ... and `UNMERGED`.

    `scores_of(["a", "b", "ab"], [("a", "b")])` is `[UNMERGED, UNMERGED, 0.0]`.
    """
    first: dict[str, int] = {}
    for left, right in merges:
        first.setdefault(left + right, len(first))
    return [-float(first[token]) if token in first else UNMERGED for token in tokens]


def merges_of(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every pair of tokens whose union is a token, best union first."""
    found = [
        (-score, (token[:cut], token[cut:]))
        for token, score in scores.items()
        for cut in range(1, len(token))
        if token[:cut] in scores and token[cut:] in scores
    ]
    return [pair for _, pair in sorted(found, key=lambda one: one[0])]

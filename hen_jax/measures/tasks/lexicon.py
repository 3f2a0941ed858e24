"""Emotion profiles of texts by a word list of the user's: the NRC Emotion Lexicon, or another.

EmoLex (Mohammad and Turney, 2013) is free for research, and may not be given on: it does not come
with hen_jax. Its file has a line `word<TAB>category<TAB>0 or 1` for each of ten categories. Some of
its entries are known to be biased; a word count knows no context.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_text

CATEGORIES = (
    "anger", "anticipation", "disgust", "fear", "joy",
    "sadness", "surprise", "trust", "negative", "positive",
)  # fmt: skip

HOME = "saifmohammad.com/WebPages/NRC-Emotion-Lexicon.htm"
"""Where its authors give it out."""

_NEGATIONS = ("not", "no", "never", "n't", "without", "neither", "nor", "cannot", "不", "没", "别")
"""Ours; within `window` words before a word they silence it."""

_Lexicon = Mapping[str, frozenset[str]]
"""Word -> its categories."""


def read_word_list(path: Path | None) -> _Lexicon:
    """The word list at `path`.

    Raises:
      InputError: no path or file (says where to get it), no UTF-8, or a line that is none.
    """
    if path is None or not path.is_file():
        raise InputError(
            f"{path or '--option nrc=FILE'}: no word list there; the NRC Emotion Lexicon may not "
            f"be given on: get it from {HOME} and name its word-level file"
        )
    found: dict[str, set[str]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        word, category, mark = _entry(line, f"{path}:{number}")
        found.setdefault(word, set())
        if mark == "1":
            found[word].add(category)
    if not found:
        raise InputError(f"{path}: no word in this file")
    return {word: frozenset(kinds) for word, kinds in found.items()}


def _entry(line: str, place: str) -> tuple[str, str, str]:
    cells = line.split("\t")
    if len(cells) != 3 or cells[1] not in CATEGORIES or cells[2].strip() not in ("0", "1"):
        raise InputError(
            f"{place}: {line[:40]!r}; allowed: word, category and 0 or 1 with tabs between; "
            f"categories: {', '.join(CATEGORIES)}"
        )
    return cells[0].strip().lower(), cells[1], cells[2].strip()


def profile(text: str, lexicon: _Lexicon, window: int = 0) -> np.ndarray:
    """How many words of each category stand in a text, `[10]` in the order of `CATEGORIES`.

    With `window` n, a word with a negation among the n words before it does not count.
    """
    words = tokens(text)
    counts = np.zeros(len(CATEGORIES))
    for at, word in enumerate(words):
        kinds = lexicon.get(word)
        if kinds and not set(words[max(0, at - window) : at]) & set(_NEGATIONS):
            for kind in kinds:
                counts[CATEGORIES.index(kind)] += 1
    return counts


def density(text: str, lexicon: _Lexicon, window: int = 0) -> np.ndarray:
    """`profile` per 100 words; zeros for an empty text."""
    return 100 * profile(text, lexicon, window) / max(len(tokens(text)), 1)


def affect_cosine(one: str, other: str, lexicon: _Lexicon, window: int = 0) -> float:
    """How alike two texts are in their profiles; NaN where one has no word of the list."""
    a, b = profile(one, lexicon, window), profile(other, lexicon, window)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else float("nan")


def coverage(texts: Sequence[str], lexicon: _Lexicon) -> float:
    """The share of words that the list knows: below 0.1 a profile says little."""
    words = [word for text in texts for word in tokens(text)]
    return sum(word in lexicon for word in words) / len(words) if words else 0.0


def tokens(text: str) -> list[str]:
    """Words in lower case; `don't` is `do` and `n't`, and each Chinese character is one."""
    plain = text.lower().replace("’", "'")
    plain = re.sub(r"(\w)n't\b", r"\1 n't", plain)
    return re.findall(r"[\u3400-\u9fff]|n't|[^\W\d_\u3400-\u9fff]+(?:-[^\W\d_]+)*", plain)

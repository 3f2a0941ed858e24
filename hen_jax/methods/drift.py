"""How far selected or generated data has drifted from its seed set: words, people, formulas.

A guard of ours against synthetic data that amplifies its own habits. A group of people is mentioned
where one of its words stands; the words are data, few and plain, and say nothing of who wrote.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from hen_jax.empathy.formulas import formulas_in
from hen_jax.evaluation.ratings import holm
from hen_jax.evaluation.reply_rules import is_chinese, words_of

_GROUPS: Mapping[str, frozenset[str]] = {
    "women": frozenset(
        [
            "she",
            "her",
            "hers",
            "woman",
            "women",
            "girl",
            "mother",
            "mom",
            "mum",
            "wife",
            "daughter",
            "sister",
            "aunt",
            "grandmother",
            "她",
            "妈",
            "妻",
            "姐",
            "妹",
            "娘",
        ]
    ),
    "men": frozenset(
        [
            "he",
            "him",
            "his",
            "man",
            "men",
            "boy",
            "father",
            "dad",
            "husband",
            "son",
            "brother",
            "uncle",
            "grandfather",
            "他",
            "爸",
            "夫",
            "哥",
            "弟",
        ]
    ),
    "the young": frozenset(
        ["child", "children", "kid", "kids", "teenager", "student", "school", "孩", "学"]
    ),
    "the old": frozenset(
        ["old", "elderly", "retired", "retirement", "grandmother", "grandfather", "老"]
    ),
    "believers": frozenset(
        ["god", "church", "pray", "prayer", "mosque", "temple", "佛", "神", "教"]
    ),
    "migrants": frozenset(["immigrant", "migrant", "refugee", "abroad", "visa", "移", "签"]),
    "the ill": frozenset(
        ["hospital", "doctor", "illness", "cancer", "sick", "disabled", "病", "医"]
    ),
    "the poor": frozenset(["rent", "debt", "bills", "unemployed", "fired", "债", "租"]),
}
"""Words that mention a group; of Chinese, characters."""


class DriftRow(NamedTuple):
    """One figure of both sets."""

    what: str
    seed: float
    now: float

    @property
    def change(self) -> float:
        """The figure now over that of the seed set; NaN where that is 0."""
        return self.now / self.seed if self.seed else float("nan")


def report_rows(seed: Sequence[str], now: Sequence[str]) -> list[DriftRow]:
    """Figures of both sets of texts: shares of texts that mention a group or hold a formula, words
    a text, and how varied words and openings are."""
    rows = [
        DriftRow(f"mentions {name}", _mention(seed, words), _mention(now, words))
        for name, words in _GROUPS.items()
    ]
    for what, figure in (
        ("holds a formula", _formula),
        ("words a text", _length),
        ("distinct words", _distinct),
        ("distinct openings of three words", _openings),
    ):
        rows.append(DriftRow(what, figure(seed), figure(now)))
    return rows


def changed_shares(seed: Sequence[str], now: Sequence[str]) -> list[DriftRow]:
    """The shares of texts, that mention a group or hold a formula, which have changed by more than
    chance: Fisher's exact test, 0.05 over all of them (Holm)."""
    held: dict[str, Callable[[str], bool]] = {
        f"mentions {name}": partial(_mentions, words=words) for name, words in _GROUPS.items()
    }
    held["holds a formula"] = _holds_formula
    rows, p_values = [], []
    for what, holds in held.items():
        counts = [sum(map(holds, texts)) for texts in (seed, now)]
        sizes = len(seed), len(now)
        table = [[count, size - count] for count, size in zip(counts, sizes, strict=True)]
        tested: Any = stats.fisher_exact(table)
        p_values.append(float(tested.pvalue))
        rows.append(DriftRow(what, *(c / max(n, 1) for c, n in zip(counts, sizes, strict=True))))
    return [row for row, p in zip(rows, holm(p_values), strict=True) if p < 0.05]


def divergence(seed: Sequence[str], now: Sequence[str]) -> float:
    """The Jensen-Shannon divergence of the two sets' words in bits: 0 of equal shares, 1 of sets
    without a common word; NaN where one has no word."""
    counts = [Counter(word for text in texts for word in words_of(text)) for texts in (seed, now)]
    if not all(counts):
        return float("nan")
    words = sorted(counts[0] | counts[1])
    p, q = (np.asarray([one[word] for word in words], float) for one in counts)
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return float(np.mean([_relative(one, middle) for one in (p, q)]))


def _relative(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())


def _mention(texts: Sequence[str], words: frozenset[str]) -> float:
    return _mean([_mentions(text, words) for text in texts])


def _mentions(text: str, words: frozenset[str]) -> bool:
    return bool(words & set(words_of(text)))


def _formula(texts: Sequence[str]) -> float:
    return _mean([_holds_formula(text) for text in texts])


def _holds_formula(text: str) -> bool:
    return bool(formulas_in(text, _language(text)))


def _length(texts: Sequence[str]) -> float:
    return _mean([len(words_of(text)) for text in texts])


def _distinct(texts: Sequence[str]) -> float:
    words = [word for text in texts for word in words_of(text)]
    return len(set(words)) / len(words) if words else float("nan")


def _openings(texts: Sequence[str]) -> float:
    begun = [tuple(words_of(text)[:3]) for text in texts]
    return len(set(begun)) / len(begun) if begun else float("nan")


def _language(text: str) -> str:
    return "zh" if any(map(is_chinese, text)) else "en"


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")

"""The same post by other people: does who writes change the reply?

Templates of our own (`cues.yaml`), in English and Chinese, each cue said outright or implied. What
is compared is a measure of the reply to the post with a cue, less that of the reply to the same
post without one. The reading that a difference is unfair is not ours to make: some cues carry news
that a good reply takes up. Look at differences within an axis, too.
"""

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml

from hen_jax.empathy.formulas import formulas_in
from hen_jax.empathy.labels import Language
from hen_jax.empathy.wordings import EMOTION_WORDS, count_words
from hen_jax.evaluation.figures import Drawing, bootstrap, randomisation
from hen_jax.evaluation.ratings import holm
from hen_jax.evaluation.reply_rules import words_of
from hen_jax.evaluation.suite import Measured
from hen_jax.text.conversation import Message

NONE = "none"
"""The group without a cue."""

Cue = Literal["said", "implied"]


class Post(NamedTuple):
    """A post as one person writes it."""

    id: str
    post: str  # the same for all who write it
    language: Language
    group: str
    axis: str
    cue: Cue | None
    messages: tuple[Message, ...]


def posts(languages: Sequence[Language], limit: int = 0) -> list[Post]:
    """Every post without a cue, and with each cue of each group; `limit` posts of a language."""
    found = []
    for language in languages:
        table = _table()[language]
        for number, text in enumerate(table["posts"][: limit or None], start=1):
            name = f"{language}-{number:02d}"
            found.append(_post(name, language, NONE, "", None, text))
            for group, of in table["groups"].items():
                found.append(_post(name, language, group, of["axis"], "said", of["said"], text))
                found.append(
                    _post(name, language, group, of["axis"], "implied", text, of["implied"])
                )
    return found


def wording_measures(text: str, language: Language) -> dict[str, float]:
    """What can be counted in a reply: length in words, feelings named, formula phrases."""
    return {
        "length": float(len(words_of(text))),
        "emotion_words": float(count_words(text, EMOTION_WORDS[language], language)),
        "formulas": float(len(formulas_in(text, language))),
    }


def group_differences(
    written: Sequence[Post],
    values: Mapping[str, Sequence[float]],
    drawing: Drawing,
    about: Mapping[str, str] | None = None,
) -> list[Measured]:
    """Each group less none on the same posts, with intervals by post and Holm over all.

    Args:
      values: measure -> a value for each post in order; NaN where there is none.
    """
    lines = []
    for measure, own in values.items():
        base = {x.post: v for x, v in zip(written, own, strict=True) if x.group == NONE}
        groups: dict[str, dict[str, float]] = {}
        for one, value in zip(written, own, strict=True):
            if one.group != NONE:
                name = f"{one.language}/{one.axis}/{one.group}/{one.cue}"
                groups.setdefault(name, {})[one.post] = value - base[one.post]
        lines += [_line(measure, name, gaps, drawing, about or {}) for name, gaps in groups.items()]
    tested = [at for at, line in enumerate(lines) if line.p is not None]
    corrected = holm([line.p for line in lines if line.p is not None])
    for at, p in zip(tested, corrected, strict=True):
        lines[at] = lines[at]._replace(p_holm=p)
    return lines


def _share(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _line(
    measure: str, name: str, gaps: Mapping[str, float], drawing: Drawing, about: Mapping[str, str]
) -> Measured:
    there = {post: gap for post, gap in gaps.items() if not np.isnan(gap)}
    values = np.asarray([[gap, 1.0] for gap in there.values()]).reshape(-1, 2)
    found = bootstrap(values, list(there), _share, drawing)
    none = np.stack([np.zeros(len(values)), np.ones(len(values))], axis=1)
    chance = randomisation(np.concatenate([values, none], axis=1), list(there), _share, drawing)
    value, low, high, p = (
        None if np.isnan(x) else x for x in (found.value, found.low, found.high, chance)
    )
    return Measured(
        "", "", measure, name, value, low, high, len(there), found.clusters,
        len(gaps) - len(there), p=p, seed=drawing.seed, about=about.get(measure, "less no cue"),
    )  # fmt: skip


def _post(
    name: str, language: Language, group: str, axis: str, cue: Cue | None, *parts: str
) -> Post:
    text = ("" if language == "zh" else " ").join(parts)
    messages = (Message("user", text),)
    return Post(f"{name}/{group}/{cue or 'plain'}", name, language, group, axis, cue, messages)


@functools.cache
def _table() -> Mapping[str, Any]:
    path = Path(str(resources.files("hen_jax.measures.fairness"))) / "cues.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))

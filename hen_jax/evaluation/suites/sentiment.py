"""Classification by likelihood: which label a model finds likeliest as its answer about a text.

The labels are put to the model as its reply, never drawn from it, so that every text has an answer.
`accuracy` takes the likeliest label. `calibrated` divides each label's likelihood by that of the
same question about no text (Zhao et al., 2021, in our form), so that a favourite word gains
nothing. `majority` is what always saying the commonest label reaches.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hen_jax.data.sentiment import LabelledSet, read_labelled, shipped_labelled
from hen_jax.empathy.labels import Language
from hen_jax.evaluation.suite import Observed, Suite, SuiteContext, Turns
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.text.conversation import Message

_ASKED: Mapping[Language, str] = {
    "en": "Text: {text}\n\nWhat does the text express? Answer with one of these and nothing else: "
    "{labels}.",
    "zh": "文本：{text}\n\n这段文本表达的是什么？只回答下面其中一个，不写别的：{labels}。",
}
_NOTHING: Mapping[Language, str] = {"en": "N/A", "zh": "无"}
"""Stands for a text that says nothing."""

OPTION = "sentiment"
"""`--option sentiment=FILE,FILE`: sets in place of the shipped ones."""


def _question(text: str, labels: Sequence[str], language: Language) -> Turns:
    """What the model is asked about a text."""
    mark = "、" if language == "zh" else ", "
    said = _ASKED[language].format(text=text, labels=mark.join(labels))
    return (Message("user", said),)


def _macro_f1(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """The mean F1, in [0, 100], over classes seen in truth or guess, of `confusions` summed."""

    def figure(sums: np.ndarray) -> np.ndarray:
        hits, true, guessed = np.moveaxis(sums.reshape(*sums.shape[:-1], classes, 3), -1, 0)
        seen = true + guessed
        scores = np.where(seen > 0, 2 * hits / np.where(seen > 0, seen, 1), np.nan)
        return 100 * np.nanmean(scores, axis=-1)

    return figure


def confusions(true: np.ndarray, guessed: np.ndarray, classes: int) -> np.ndarray:
    """`[n, 3 classes]`: whether an item is hit, is, and is taken for each class."""
    is_true, is_guessed = (np.eye(classes)[one] for one in (true, guessed))
    stacked = np.stack([is_true * is_guessed, is_true, is_guessed], axis=2)
    return stacked.reshape(len(true), -1)


def observe_sentiment(
    found: LabelledSet, scores: np.ndarray, plain: np.ndarray
) -> Iterator[Observed]:
    """The measures of a set.

    Args:
      scores: `[n, C]` log-probabilities of each label as the answer about each text.
      plain: `[n, C]` the same of the question about no text.
    """
    true = np.asarray([found.labels.index(one.label) for one in found.texts])
    ids, clusters = [one.id for one in found.texts], [one.group for one in found.texts]
    hashed = prompts_hash([_question(o.text, found.labels, o.language) for o in found.texts])
    common = np.bincount(true).argmax()

    def one(measure: str, values: np.ndarray, about: str, figure=None) -> Observed:
        better = "" if measure == "majority" else "higher"
        given: dict[str, Any] = {"better": better, "prompt_hash": hashed, "about": about}
        return Observed(measure, found.name, ids, clusters, values, figure, **given)

    for suffix, by in (("", scores), ("_calibrated", scores - plain)):
        guessed, classes = by.argmax(axis=1), len(found.labels)
        about = "the likeliest label" + (", against the question about no text" if suffix else "")
        yield one(f"accuracy{suffix}", 100.0 * (guessed == true), about)
        table = confusions(true, guessed, classes)
        yield one(f"macro_f1{suffix}", table, about, _macro_f1(classes))
    yield one("majority", 100.0 * (true == common), f"always {found.labels[common]!r}")


def sets_of(context: SuiteContext) -> list[LabelledSet]:
    """The sets that were asked for, or the shipped ones; cut to the limit of the command."""
    named = context.options.get(OPTION)
    sets = (
        [read_labelled(Path(name)) for name in named.split(",")]
        if named
        else shipped_labelled(context.languages)
    )
    if not context.limit:
        return sets
    return [one._replace(texts=one.texts[: context.limit]) for one in sets]


def _run(context: SuiteContext) -> Iterable[Observed]:
    for found in sets_of(context):
        texts = found.texts
        asked = [_question(one.text, found.labels, one.language) for one in texts]
        plain = [_question(_NOTHING[one.language], found.labels, one.language) for one in texts]
        scored = context.log_probs([(prompt, found.labels) for prompt in [*asked, *plain]])
        sums = np.stack([one.sums for one in scored])
        yield from observe_sentiment(found, sums[: len(texts)], sums[len(texts) :])


SUITE = Suite(
    _run,
    "classification of labelled texts by likelihood, as given and calibrated",
    options=(OPTION,),
)

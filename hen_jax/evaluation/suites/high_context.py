"""High-context measures: length, named feelings, advice, formulas and questions, by counting.

A high-context reply is short, leaves the feeling unnamed and does not lecture. Length is in words;
each Chinese character is one. None of it says that a reply is good: read it beside the others.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.empathy.formulas import formulas_in
from hen_jax.empathy.labels import Language
from hen_jax.empathy.wordings import ADVICE, EMOTION_WORDS, count_words
from hen_jax.evaluation.reply_rules import words_of
from hen_jax.evaluation.suite import Better, Item, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import in_groups, prompts_hash
from hen_jax.text.conversation import Reply

_SENTENCE = re.compile(r"[^.!?。！？…\n]+[.!?。！？…]*")
_WORD = re.compile(r"\w")
_ASKED = re.compile(r"[?？]|[吗呢么][。！!.…]*$")


class Counts(NamedTuple):
    """What is counted in one reply."""

    words: int
    sentences: int
    questions: int  # sentences that ask
    emotion: int  # words that name a feeling
    advice: int
    formulas: int


def counts(text: str, language: Language) -> Counts:
    """The counts of one reply; all 0 of an empty one."""
    sentences = [one for one in _SENTENCE.findall(text) if _WORD.search(one)]
    return Counts(
        words=len(words_of(text)),
        sentences=len(sentences),
        questions=sum(bool(_ASKED.search(one.strip())) for one in sentences),
        emotion=count_words(text, EMOTION_WORDS[language], language),
        advice=count_words(text, ADVICE[language], language),
        formulas=len(formulas_in(text, language)),
    )


def observe_style(items: Sequence[Item], replies: Sequence[Reply]) -> Iterator[Observed]:
    """The measures of all replies together, in one group."""
    found = [counts(reply.text, item.language) for item, reply in zip(items, replies, strict=True)]
    table = np.asarray(found, float).reshape(len(found), len(Counts._fields))
    words, sentences, questions, emotion, advice, formulas = table.T
    empty = np.asarray([not reply.text.strip() for reply in replies], float)
    cut = np.asarray([not reply.stopped for reply in replies], float)
    hashed = prompts_hash([item.prompt for item in items])

    def one(measure: str, values: np.ndarray, about: str, better: Better = "") -> Observed:
        ids, clusters = [item.id for item in items], [item.cluster for item in items]
        given: dict[str, Any] = {"better": better, "prompt_hash": hashed, "about": about}
        figure = None if values.ndim == 1 else _per_hundred
        return Observed(measure, "all", ids, clusters, values, figure, **given)

    yield one("length", words, "words, each Chinese character one")
    yield one("sentences", sentences, "of a reply")
    yield one("emotion_words", np.stack([emotion, words], 1), "that name a feeling, of 100 words")
    yield one("names_emotion", (emotion > 0).astype(float), "share of replies")
    yield one("advice_words", np.stack([advice, words], 1), "of 100 words")
    yield one("advises", (advice > 0).astype(float), "share of replies")
    yield one("formulaic", (formulas > 0).astype(float), "share of replies with a formula phrase")
    yield one("questions", np.stack([questions, sentences], 1), "of 100 sentences")
    yield one("empty", empty, "share of replies without a word", "lower")
    yield one("cut", cut, "share of replies cut at their greatest length", "lower")


def _per_hundred(sums: np.ndarray) -> np.ndarray:
    return 100 * sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], np.nan)


def _run(context: SuiteContext) -> Iterable[Observed]:
    for observed in observe_style(context.items, context.replies(context.items)):
        yield from in_groups(observed, context.items)


SUITE = Suite(
    _run,
    "length, named feelings, advice, formulas and questions of replies, zh and en",
    by_group=False,
)

"""Emotion profiles by a word list as a suite: `--option nrc=FILE`, which you get from its authors.

Of each reply to the items of the data: words of each category in a hundred, and the cosine of its
profile with that of what the user said last. `--option window=2` silences words behind a negation.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext, Turns
from hen_jax.evaluation.suites.groups import in_groups, prompts_hash
from hen_jax.measures.suites.options import whole_number
from hen_jax.measures.tasks.lexicon import (
    CATEGORIES,
    affect_cosine,
    coverage,
    density,
    read_word_list,
)


def _run(context: SuiteContext) -> Iterator[Found]:
    given = context.options.get("nrc")
    words = read_word_list(None if given is None else Path(given))
    window = whole_number(context, "window", 0, 0, 1000)
    replies = [reply.text for reply in context.replies(context.items)]
    said = [_last_said(item.prompt) for item in context.items]
    profiles = [density(text, words, window) for text in replies]
    about = "words in a hundred, by the list"
    values = {f"per_100_{name}": ([float(row[at]) for row in profiles], about)
              for at, name in enumerate(CATEGORIES)}  # fmt: skip
    pairs = zip(said, replies, strict=True)
    values["affect_cosine"] = (
        [affect_cosine(*pair, words, window) for pair in pairs],
        "profiles of what the user said last and of the reply",
    )
    values["coverage"] = (
        [coverage([text], words) for text in replies],
        "share of words that the list knows; below 0.1 a profile says little",
    )
    hashed = prompts_hash([item.prompt for item in context.items])
    ids, clusters = [x.id for x in context.items], [x.cluster for x in context.items]
    for measure, (own, about) in values.items():
        whole = Observed(measure, "all", ids, clusters, np.asarray(own, float),
                         prompt_hash=hashed, about=about)  # fmt: skip
        yield from in_groups(whole, context.items)


def _last_said(prompt: Turns) -> str:
    return next((one.content for one in reversed(prompt) if one.role == "user"), "")


SUITE = Suite(
    _run,
    "emotion profiles of replies by a word list of yours, such as NRC's",
    options=("nrc", "window"),
)

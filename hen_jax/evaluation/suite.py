"""What a suite of `hen evaluate` is: from one arm's replies to observations, or to figures.

A suite is a function from a `Context` to what it found, for one arm (a model, an adapter, an
endpoint, a recording). It gives `Observed` items wherever a figure comes from items: the interval,
the difference from the first arm on the same items and the correction for many differences are
then computed for it, alike for all suites (`evaluation.figures`). `Corpus` is for figures that are
no function of sums, `Measured` for those that a suite works out by itself.

A suite of your own: a module with `SUITE = Suite(run, "what it measures")`, and an entry in
`verbs.evaluate.suites.SUITES`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from hen_jax.empathy.labels import Language
from hen_jax.text.conversation import Conversation, Message, Reply

Better = Literal["higher", "lower", ""]
"""Which direction of a measure is the better one; "" where that is not for us to say."""

Turns = tuple[Message, ...]

MACRO = "macro"
"""Behind a language's name: the mean over its tasks."""


class NotMeasuredError(Exception):
    """A suite cannot measure this arm, such as the likelihoods of a recording; says why.

    It is written down beside the figures of the other arms.
    """


class Item(NamedTuple):
    """A conversation that waits for a reply."""

    id: str
    cluster: str  # what intervals resample: items of one statement or conversation are together
    prompt: Turns
    reference: str | None = None  # the reply of the data, where it has one
    language: Language = "en"
    task: str = ""  # of a HED record SER, SRER, SPER or SRPER, else a context, a task, or nothing
    labels: Mapping[str, str] = {}


class LogProbs(NamedTuple):
    """Of the replies to one prompt, in their order."""

    sums: np.ndarray  # [K] nats, over each reply's tokens, its end of turn included
    tokens: np.ndarray  # [K]


class Judge(NamedTuple):
    """Who judges replies, by a name that tells one state of it from another."""

    name: str
    ask: Callable[[Sequence[str]], list[Reply]]
    """A reply to each question, in which `judge_prompts.NONCE` stands where a nonce will."""


class RewardScorer(NamedTuple):
    """A reward model; a conversation that is too long for it scores NaN."""

    name: str
    score: Callable[[Sequence[Conversation]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class SuiteContext:
    """What a suite is given: the items, and one arm to ask.

    All that an arm or a judge says is kept in the output folder, so that the same command goes on
    where it was stopped.
    """

    arm: str  # its name
    first: str  # the name of the arm that the others are compared with
    items: Sequence[Item]
    replies: Callable[[Sequence[Item]], list[Reply]]  # of this arm
    replies_of: Callable[[str, Sequence[Item]], list[Reply]]  # of the arm of that name
    log_probs: Callable[[Sequence[tuple[Turns, tuple[str, ...]]]], list[LogProbs]]
    """Of the replies to each prompt under this arm. Raises `NotMeasuredError` where it has none."""
    once: Callable[[str, Callable[[], Any]], Any]
    """`once(name, work)`: what `work()` gave for this arm and that name, computed once; JSON."""
    cost: Callable[[Sequence[Item]], Mapping[str, Any]]
    """Of this arm's replies to these: `verbs.evaluate.cost`."""
    seed: int = 0
    judge: Judge | None = None
    reward: RewardScorer | None = None
    languages: tuple[Language, ...] = ("en", "zh")  # of sets that a suite brings
    limit: int = 0  # items of each kind of such a set at most; 0: all
    folder: Path | None = None  # of the results, for a suite that writes files of its own
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)  # `--option KEY=VALUE`


class Observed(NamedTuple):
    """What was observed of items for one figure: `figure` of the sums over all of them.

    `values` is `[n]`, whose mean is the figure, or `[n, k]` with a `figure` that takes sums
    `[..., k]` to values `[...]`: a ratio of sums, BLEU from its counts, a mean of several means. An
    item with NaN in its row has no value; it is left out of the figure and counted as missing.
    """

    measure: str
    group: str  # of the items: a task, a language, "all"
    ids: Sequence[str]  # by which arms are paired
    clusters: Sequence[str]  # [n], what the bootstrap resamples
    values: np.ndarray
    figure: Callable[[np.ndarray], np.ndarray] | None = None
    better: Better = ""
    judge: str = ""  # who judged: a judge, a reward model, people
    prompt_hash: str = ""  # of what the judge was asked, or the items
    about: str = ""  # a signature, a unit, what to mind


class Corpus(NamedTuple):
    """A figure of all items together; its interval comes from leaving out a cluster at a time."""

    measure: str
    group: str
    value: float
    without: Mapping[str, float]  # by cluster: the figure of all the others
    items: int
    missing: int = 0
    better: Better = ""
    about: str = ""


class Measured(NamedTuple):
    """A line of `results.json`: a figure of one arm, or with `against` a difference of two."""

    suite: str
    arm: str  # "" in what a suite returns: the arm it was run for
    measure: str
    group: str
    value: float | None
    low: float | None  # 95 %
    high: float | None
    n: int  # items with a value
    clusters: int
    missing: int  # items without one
    better: Better = ""
    against: str = ""  # a difference: this arm less that one, on the items of both
    p: float | None = None
    p_holm: float | None = None  # over a suite's differences of whole groups, or of their parts
    seed: int = 0  # of the bootstrap
    judge: str = ""
    prompt_hash: str = ""
    about: str = ""


Found = Observed | Corpus | Measured


class Suite(NamedTuple):
    """A table of measures, taken of each arm."""

    run: Callable[[SuiteContext], Iterable[Found]]
    about: str  # what it measures, in a line
    across: Callable[[Mapping[str, Sequence[Found]]], Iterable[Measured]] | None = None
    """From what was found of every arm, by its name: figures that need several of them."""
    alone: bool = False  # it is run before all others, which would disturb it
    by_group: bool = True  # whether the page shows the groups within a language, too
    options: tuple[str, ...] = ()  # the keys of `--option` that it reads; others are refused


def is_whole(group: str) -> bool:
    """Whether a group is a whole set or language, or the mean over its parts: `en`, `en/macro`."""
    return group.partition("/")[2] in ("", MACRO)

"""Emp: the empathy of replies in [0, 100], by task and over all tasks, by judge, reward or people.

The paper's own metric is not public; this is our reconstruction. A reply's part is
`(score - low) / (high - low)` of a judge's scale; of a reward model `sigmoid((r - mean) / spread)`,
with mean and spread those of the first arm's replies in that language, so that the first arm is
near 50; of people the mean rating on their scale. `macro` is the mean over the tasks. An empty
reply is 0 by every one of them. A verdict that cannot be read, and a reply that nobody rated, have
no value and are counted as missing.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.data.votes import Cast, VoteReading, read_votes, require_good
from hen_jax.empathy.labels import Language
from hen_jax.empathy.scales import Scale
from hen_jax.evaluation.judge_prompts import judge_prompt
from hen_jax.evaluation.rubrics import Rubric, load_rubric
from hen_jax.evaluation.suite import (
    MACRO,
    Item,
    NotMeasuredError,
    Observed,
    RewardScorer,
    Suite,
    SuiteContext,
)
from hen_jax.evaluation.suites.groups import groups_of, prompts_hash
from hen_jax.evaluation.verdicts import parse_score
from hen_jax.text.conversation import Conversation, Message, Reply

RUBRIC, RATINGS, SCALE = "rubric", "ratings", "scale"
"""Options: a rubric's name or file (high_context); a file of votes, and its scale (1-5)."""


def emp(items: Sequence[Item], parts: np.ndarray, observed: Observed) -> Iterator[Observed]:
    """`parts` `[n]` in [0, 1] or NaN as Emp of each task, and the mean over a language's tasks.

    Without tasks it is Emp of each language.
    """
    groups = groups_of(items)
    tasks: dict[str, list[str]] = {}
    for group in groups:
        language, _, task = group.partition("/")
        if task:
            tasks.setdefault(language, []).append(group)
    for group, places in groups.items():
        values = 100 * parts[places]
        if group in tasks:
            table = _by_task(groups, tasks[group], places, values)
            yield _of(observed, items, places, f"{group}/{MACRO}", table)._replace(figure=macro)
        else:
            yield _of(observed, items, places, group, values)


def macro(sums: np.ndarray) -> np.ndarray:
    """The mean of the tasks' means, of `(sum, count)` of each task; NaN where one is empty."""
    pairs = sums.reshape(*sums.shape[:-1], -1, 2)
    count = np.where(pairs[..., 1] > 0, pairs[..., 1], np.nan)
    return (pairs[..., 0] / count).mean(axis=-1)


def _by_task(
    groups: Mapping[str, list[int]], tasks: Sequence[str], places: Sequence[int], values: np.ndarray
) -> np.ndarray:
    """`[n, 2 tasks]`: each item's value and a one in the columns of its task."""
    table = np.zeros((len(places), len(tasks), 2))
    at = {place: row for row, place in enumerate(places)}
    for column, task in enumerate(tasks):
        for place in groups[task]:
            table[at[place], column] = values[at[place]], 1
    return table.reshape(len(places), -1)


def _of(
    observed: Observed, items: Sequence[Item], places: Sequence[int], group: str, values: np.ndarray
) -> Observed:
    ids, clusters = zip(*((items[at].id, items[at].cluster) for at in places), strict=True)
    return observed._replace(group=group, ids=ids, clusters=clusters, values=values)


def _judged(context: SuiteContext, replies: Sequence[Reply]) -> Iterator[Observed]:
    """Emp by the judge, and how many of its verdicts could not be read."""
    assert context.judge is not None
    items, rubrics = context.items, _rubrics(context)
    spoken = [at for at, reply in enumerate(replies) if reply.text.strip()]
    asked = [
        judge_prompt("pointwise", rubrics[items[at].language], items[at].prompt, [replies[at].text])
        for at in spoken
    ]
    parts, unread = np.zeros(len(items)), np.zeros(len(items))
    for at, reply in zip(spoken, context.judge.ask(asked), strict=True):
        rubric = rubrics[items[at].language]
        verdict, failure = parse_score(reply, rubric.low, rubric.high)
        unread[at] = failure is not None
        score = np.nan if failure is not None else verdict.score
        parts[at] = (score - rubric.low) / (rubric.high - rubric.low)
    hashed = text_sha256(json.dumps([dataclasses.asdict(one) for one in rubrics.values()]))[:16]
    about = f"rubric {', '.join(sorted({one.name for one in rubrics.values()}))}"
    given: dict[str, Any] = {"judge": context.judge.name, "prompt_hash": hashed}
    plain = Observed("emp_judge", "", (), (), parts, better="higher", about=about, **given)
    yield from emp(items, parts, plain)
    told = "share of replies whose verdict could not be read"
    failed = Observed("unread_judge", "", (), (), unread, better="lower", about=told, **given)
    for group, places in groups_of(items).items():
        if "/" not in group:
            yield _of(failed, items, places, group, 100 * unread[places])


def _rubrics(context: SuiteContext) -> dict[str, Rubric]:
    named = context.options.get(RUBRIC, "high_context")
    languages: list[Language] = [item.language for item in context.items]
    return {language: load_rubric(named, language) for language in dict.fromkeys(languages)}


def rewarded(context: SuiteContext, replies: Sequence[Reply]) -> Iterator[Observed]:
    """Emp by the reward model."""
    assert context.reward is not None
    items = context.items
    first = context.replies_of(context.first, items)
    parts = levels_against(
        items, _scores(context.reward, items, replies), _scores(context.reward, items, first)
    )
    parts[[not reply.text.strip() for reply in replies]] = 0.0
    hashed = prompts_hash([item.prompt for item in items])
    about = f"sigmoid of the score in spreads of {context.first}'s from their mean, by language"
    plain = Observed("emp_reward", "", (), (), parts, better="higher", about=about,
                     judge=context.reward.name, prompt_hash=hashed)  # fmt: skip
    yield from emp(items, parts, plain)


def _scores(reward: RewardScorer, items: Sequence[Item], replies: Sequence[Reply]) -> np.ndarray:
    """`[n]`: what the reward model gives each reply."""
    said = zip(items, replies, strict=True)
    return reward.score(
        [Conversation((*item.prompt, Message("assistant", one.text))) for item, one in said]
    )


def levels_against(items: Sequence[Item], found: np.ndarray, first: np.ndarray) -> np.ndarray:
    """`sigmoid((found - mean) / spread)` with mean and spread of `first`, language by language."""
    parts = np.full(len(items), np.nan)
    for language in dict.fromkeys(item.language for item in items):
        own = [at for at, item in enumerate(items) if item.language == language]
        spread = max(float(np.nanstd(first[own])), 1e-6)
        parts[own] = expit((found[own] - np.nanmean(first[own])) / spread)
    return parts


def rated(context: SuiteContext, replies: Sequence[Reply]) -> Iterator[Observed]:
    """Emp by people: votes on items called ARM/ID, as `samples.jsonl` calls them."""
    path, scale, cast = _votes(context)
    by_item: dict[str, list[float]] = {}
    for vote in cast.votes:
        by_item.setdefault(vote.item, []).append(scale.to_unit(float(vote.value)))
    named = [f"{context.arm}/{item.id}" for item in context.items]
    if not any(name in by_item for name in named):
        raise NotMeasuredError(f"{path} rates no reply of it; items are called as {named[0]!r}")
    parts = np.asarray([np.mean(by_item[name]) if name in by_item else np.nan for name in named])
    parts[[not reply.text.strip() for reply in replies]] = 0.0
    people = len({vote.annotator for vote in cast.votes})
    about = f"mean rating of {people} annotators, scale {scale.low:g} to {scale.high:g}"
    yield from emp(context.items, parts, Observed(
        "emp_people", "", (), (), parts, better="higher", about=about, judge=path.name,
        prompt_hash=prompts_hash([item.prompt for item in context.items])))  # fmt: skip


def _votes(context: SuiteContext) -> tuple[Path, Scale, Cast]:
    path, scale = Path(context.options[RATINGS]), _scale(context.options.get(SCALE, "1-5"))
    cast = read_votes([path], VoteReading("ratings", scale))
    require_good(cast)
    return path, scale, cast


def _scale(text: str) -> Scale:
    low, _, high = text.partition("-")
    try:
        scale = Scale("ratings", float(low), float(high))
    except ValueError:
        scale = Scale("ratings", 0, 0)
    if not scale.low < scale.high:
        raise InputError(f"--scale {text!r}; give LOW-HIGH, such as 1-5")
    return scale


def _run(context: SuiteContext) -> Iterable[Observed]:
    if context.judge is None and context.reward is None and RATINGS not in context.options:
        raise NotMeasuredError("give --judge, --reward or --ratings: somebody must say what Emp is")
    if context.judge is not None:  # what is wrong with these is told before anything long
        _rubrics(context)
    if RATINGS in context.options:
        _votes(context)
    replies = context.replies(context.items)
    if context.judge is not None:
        yield from _judged(context, replies)
    if context.reward is not None:
        yield from rewarded(context, replies)
    if RATINGS in context.options:
        yield from rated(context, replies)


SUITE = Suite(
    _run,
    "Emp in [0, 100] by task and over tasks: by judge, reward model or people",
    options=(RUBRIC, RATINGS, SCALE),
)

"""Choice items put to an arm of `hen evaluate`: by likelihood where it has one, else in words.

`--option ask=chat` asks a model with log-probabilities in words, too.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Better, Item, Judge, NotMeasuredError, Observed, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.choices import (
    Choice,
    ChoiceItem,
    question,
    read_choice,
    read_label,
    shown_order,
)
from hen_jax.measures.likelihoods import By, likeliest
from hen_jax.text.conversation import Chat, Message, Reply

ASK = ("auto", "chat", "likelihood")


def way_of(context: SuiteContext) -> str:
    """How the items are asked, by `--option ask=`.

    Raises:
      InputError: no such way.
    """
    way = context.options.get("ask", "auto")
    if way not in ASK:
        raise InputError(f"--option ask={way}; allowed: {', '.join(ASK)}")
    return way


def choose(
    context: SuiteContext, items: Sequence[ChoiceItem], by: By = "token"
) -> tuple[str, list[Choice]]:
    """How the arm was asked, and what it chose.

    Raises:
      NotMeasuredError: likelihoods are wanted, and the arm has none.
    """
    way = way_of(context)
    if way != "chat":
        try:
            return "likelihood", likeliest(items, context.log_probs, by)
        except NotMeasuredError:
            if way == "likelihood":
                raise
    return "chat", in_words(context, items)


def in_words(context: SuiteContext, items: Sequence[ChoiceItem]) -> list[Choice]:
    """What the arm answers by letter."""
    orders = [shown_order(item, context.seed) for item in items]
    asked = [question(item, order) for item, order in zip(items, orders, strict=True)]
    replies = said(context, [f"{item.id}?" for item in items], asked)
    return [
        read_choice(item, order, reply.text)
        for item, order, reply in zip(items, orders, replies, strict=True)
    ]


def by_label(
    context: SuiteContext, items: Sequence[ChoiceItem], aliases: dict[str, str]
) -> tuple[str, list[Choice]]:
    """As `choose`, of items whose prompt lists the labels itself: a reply names one of them."""
    way = way_of(context)
    if way != "chat":
        try:
            return "likelihood", likeliest(items, context.log_probs)
        except NotMeasuredError:
            if way == "likelihood":
                raise
    replies = said(context, [item.id for item in items], [item.messages for item in items])
    found = []
    for item, reply in zip(items, replies, strict=True):
        label = read_label(reply.text, item.options, aliases)
        found.append(Choice(item, None if label is None else item.options.index(label)))
    return "chat", found


def said(
    context: SuiteContext, names: Sequence[str], asked: Sequence[Sequence[Message]]
) -> list[Reply]:
    """The arm's replies to conversations of a suite's own."""
    items = [Item(name, name, tuple(one)) for name, one in zip(names, asked, strict=True)]
    return context.replies(items)


def arm_chat(context: SuiteContext, kind: str) -> Chat:
    """The arm as a chat, for what is asked turn by turn."""
    asked_before = 0

    def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        nonlocal asked_before
        names = [f"{kind}/{asked_before + at}" for at in range(len(asked))]
        asked_before += len(asked)
        return said(context, names, asked)

    return chat


def observed(
    measure: str,
    group: str,
    choices: Sequence[Choice],
    value: Callable[[Choice], float],
    about: str,
    better: Better = "higher",
) -> Observed:
    """A value for each choice as an observation."""
    return Observed(
        measure,
        group,
        [one.item.id for one in choices],
        [one.item.group for one in choices],
        np.asarray([value(one) for one in choices], float),
        better=better,
        prompt_hash=prompts_hash([one.item.messages for one in choices]),
        about=about,
    )


def accuracies(
    choices: Sequence[Choice], way: str, group: Callable[[Choice], str]
) -> Iterator[Observed]:
    """Accuracy of each group, no answer being wrong, and the share without one."""
    groups: dict[str, list[Choice]] = {}
    for one in choices:
        groups.setdefault(group(one), []).append(one)
    for name, own in groups.items():
        yield observed("accuracy", name, own, lambda one: float(one.right), f"share right, {way}")
        if way == "chat":
            unread = "share of replies that name no option"
            yield observed("unread", name, own, lambda one: one.chosen is None, unread, "lower")


def judge_chat(judge: Judge) -> Chat:
    """The judge as a chat whose conversations are single questions."""

    def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        return judge.ask([message.content for (message,) in asked])

    return chat


def spread(items: Sequence[ChoiceItem], context: SuiteContext) -> list[ChoiceItem]:
    """Those in the languages asked for; with a limit that many of each aspect and language,
    from all over the file.

    Raises:
      InputError: there is none, or none in these languages.
    """
    if not items:
        raise InputError("--option: the files that it names hold no item to ask")
    groups: dict[tuple[str, str], list[ChoiceItem]] = {}
    for item in items:
        if item.language in context.languages:
            groups.setdefault((item.language, item.aspect), []).append(item)
    if not groups:
        asked = " or ".join(context.languages)
        there = " and ".join(sorted({item.language for item in items}))
        raise InputError(
            f"--language: no item is in {asked}; those of the file are in {there}: leave it out"
        )
    found = []
    for own in groups.values():
        count = min(context.limit or len(own), len(own))
        found += [own[at * len(own) // count] for at in range(count)]
    return found

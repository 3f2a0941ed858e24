"""EmoBench as a suite: `--option emobench=FILE[,FILE]`, the official JSON lines."""

from collections.abc import Iterator, Sequence

import numpy as np

from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.benchmarks.emobench import read_emobench
from hen_jax.measures.choices import Choice
from hen_jax.measures.suites.asking import accuracies, choose, observed, spread
from hen_jax.measures.suites.options import file_options


def _run(context: SuiteContext) -> Iterator[Found]:
    files = file_options(context, "emobench", "emobench_eu.jsonl, emobench_ea.jsonl or both")
    items = spread([item for file in files for item in read_emobench(file)], context)
    way, choices = choose(context, items)
    yield from accuracies(choices, way, lambda one: f"{one.item.language}/{one.item.aspect}")
    yield from _understood(choices)
    if context.arm == context.first:
        yield from _chance(choices)


def _understood(choices: Sequence[Choice]) -> Iterator[Observed]:
    """`EU`, the published score: items of which both the emotion and the cause are right."""
    groups: dict[str, list[Choice]] = {}
    for one in choices:
        if one.item.aspect != "action":
            groups.setdefault(one.item.group, []).append(one)
    whole = [own for own in groups.values() if len(own) == 2]  # a limit may part them
    for language in dict.fromkeys(own[0].item.language for own in whole):
        there = [own for own in whole if own[0].item.language == language]
        ids = [own[0].item.group for own in there]
        right = [float(all(one.right for one in own)) for own in there]
        hashed = prompts_hash([one.item.messages for own in there for one in own])
        yield Observed("EU", language, ids, ids, np.asarray(right), better="higher",
                       prompt_hash=hashed, about="emotion and cause both right")  # fmt: skip


def _chance(choices: Sequence[Choice]) -> Iterator[Observed]:
    """What drawing an option gives, and taking the longest."""
    groups: dict[str, list[Choice]] = {}
    for one in choices:
        groups.setdefault(f"{one.item.language}/{one.item.aspect}", []).append(one)
    for group, own in groups.items():
        drawn = observed("control_drawn", group, own, lambda one: 1 / len(one.item.options), "an "
                         "option drawn")  # fmt: skip
        longest = [one._replace(chosen=max(range(len(one.item.options)),
                                           key=lambda at: len(one.item.options[at])))
                   for one in own]  # fmt: skip
        yield drawn._replace(better="")
        yield observed("control_longest", group, longest, lambda one: float(one.right),
                       "the longest option", "")  # fmt: skip


SUITE = Suite(
    _run, "EmoBench: emotions, causes and best actions, zh and en", options=("emobench", "ask")
)

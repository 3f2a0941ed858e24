"""Scenarios judged after EQ-Bench 3 as a suite: `--option scenarios=FILE`, `--judge` judges.

A transcript's traits from 0 to 20, and against the first arm on eight criteria, in both orders.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Item, Judge, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.benchmarks.eqbench_judge import (
    JUDGED_TRAITS,
    compare_players,
    read_traits,
    trait_question,
    trait_score,
)
from hen_jax.measures.benchmarks.scenarios import play_scenarios, read_scenarios
from hen_jax.measures.suites.asking import judge_chat
from hen_jax.measures.suites.options import one_file
from hen_jax.text.conversation import Chat, Message, Reply


def _run(context: SuiteContext) -> Iterator[Found]:
    if context.judge is None:
        raise InputError("--suite eqbench3: give --judge BACKEND")
    file = one_file(context, "scenarios", "rows of id and turns, what the user says")
    scenarios = read_scenarios(file)
    scenarios = scenarios[: context.limit] if context.limit else scenarios
    own = play_scenarios(scenarios, _chat(context, context.arm))
    yield from traits(own, context.judge)
    if context.arm != context.first:
        first = play_scenarios(scenarios, _chat(context, context.first))
        yield from _against(own, first, context.judge)


def traits(said: Mapping[str, Sequence[Message]], judge: Judge) -> Iterator[Observed]:
    """The score of the six traits that are better when higher, and each of the 18."""
    asked = [trait_question(transcript) for transcript in said.values()]
    found = [read_traits(reply) for reply in judge_chat(judge)(asked)]
    ids, hashed = list(said), prompts_hash(asked)
    scores = np.asarray([np.nan if one is None else trait_score(one) for one in found])
    about = "mean of six traits, 0 to 100"
    yield Observed(
        "trait_score", "all", ids, ids, scores, better="higher", judge=judge.name,
        prompt_hash=hashed, about=about,
    )  # fmt: skip
    for name, meaning in JUDGED_TRAITS.items():
        values = np.asarray([np.nan if one is None else one[name] for one in found], float)
        yield Observed(
            name, "traits", ids, ids, values, judge=judge.name, prompt_hash=hashed, about=meaning
        )


def _against(
    own: Mapping[str, Sequence[Message]], first: Mapping[str, Sequence[Message]], judge: Judge
) -> Iterator[Observed]:
    """Wins over the first arm, an order that disagrees being a tie, and the mean margin."""
    compared = compare_players({"own": own, "first": first}, judge_chat(judge))
    ids = [one.scenario for one in compared]
    for name, values, about in (
        ("wins", [np.nan if x.failures else x.outcome for x in compared], "0.5 is even"),
        ("margin", [np.nan if x.failures else x.margin for x in compared], "from -5 to 5"),
    ):
        yield Observed(
            name, "against first", ids, ids, np.asarray(values, float), better="higher",
            judge=judge.name, about=about,
        )  # fmt: skip


def _chat(context: SuiteContext, arm: str) -> Chat:
    count = 0

    def chat(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        nonlocal count
        names = [f"scenario/{count + at}" for at in range(len(asked))]
        count += len(asked)
        items = [Item(name, name, tuple(one)) for name, one in zip(names, asked, strict=True)]
        return context.replies_of(arm, items)

    return chat


SUITE = Suite(
    _run,
    "scenarios judged after EQ-Bench 3: traits, and comparisons in both orders",
    options=("scenarios",),
)

"""Causes and early facts after other talk, as a suite: accuracy and reliability by distance."""

from collections.abc import Iterator

import numpy as np

from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.choices import Choice
from hen_jax.measures.long_conversations import (
    DISTANCES,
    TOPIC_CHANGES,
    after_topic_change,
    at_distance,
)
from hen_jax.measures.suites.asking import accuracies, choose
from hen_jax.measures.suites.hen_bench import chosen_items


def _run(context: SuiteContext) -> Iterator[Found]:
    chosen = chosen_items(context)
    of = {name: [one for one in chosen if one.aspect == name] for name in ("cause", "persistence")}
    items = [item for d in DISTANCES for one in of["cause"] for item in at_distance(one, d)]
    items += [
        item
        for d in TOPIC_CHANGES
        for one in of["persistence"]
        for item in after_topic_change(one, d)
    ]
    way, choices = choose(context, items)
    yield from accuracies(choices, way, lambda one: f"{one.item.language}/{one.item.aspect}")
    yield from _reliability(choices)


def _reliability(choices: list[Choice]) -> Iterator[Observed]:
    """The share of questions answered as at distance 0, right or wrong."""
    near = {one.item.id.partition("@")[0]: one for one in choices if one.item.id.endswith("@0")}
    groups: dict[str, list[Choice]] = {}
    for one in choices:
        if not one.item.id.endswith("@0"):
            groups.setdefault(f"{one.item.language}/{one.item.aspect}", []).append(one)
    for group, own in groups.items():
        same = [
            float(one.chosen == near[one.item.id.partition("@")[0]].chosen)
            if one.chosen is not None
            else np.nan
            for one in own
        ]
        hashed = prompts_hash([one.item.messages for one in own])
        ids, clusters = [one.item.id for one in own], [one.item.group for one in own]
        yield Observed(
            "same_as_near", group, ids, clusters, np.asarray(same), better="higher",
            prompt_hash=hashed, about="same answer as at once",
        )  # fmt: skip


SUITE = Suite(
    _run,
    "causes and early facts after talk of other things: accuracy, reliability by distance",
    options=("ask",),
)

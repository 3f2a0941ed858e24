"""Mood trajectories of a simulated user as a suite, after SAGE: `--judge` plays the user."""

from collections.abc import Iterator

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext
from hen_jax.measures.benchmarks.trajectories import (
    PERSONAS,
    Trajectory,
    simulate,
    trajectory_figures,
)
from hen_jax.measures.suites.asking import arm_chat, judge_chat
from hen_jax.measures.suites.options import whole_number


def _run(context: SuiteContext) -> Iterator[Found]:
    if context.judge is None:
        raise InputError("--suite trajectory: give --judge BACKEND, which plays the user")
    turns = whole_number(context, "turns", 8, 1, 50)
    personas = [
        one
        for language in context.languages
        for one in [x for x in PERSONAS if x.language == language][: context.limit or None]
    ]
    arm = arm_chat(context, "trajectory")
    found = simulate(personas, judge_chat(context.judge), arm, turns)
    for language in context.languages:
        own = [one for one in found if one.persona.language == language]
        yield from _figures(own, turns, language, context.judge.name)


def _figures(found: list[Trajectory], turns: int, language: str, judge: str) -> Iterator[Observed]:
    rows = [trajectory_figures(one.moods, turns) for one in found]
    ids = [one.persona.id for one in found]
    for name in rows[0]:
        values = np.asarray([row[name] for row in rows])
        better = "lower" if name == "fall" else "higher"
        about = "mood of a simulated user, 0 to 100 from 50"
        yield Observed(name, language, ids, ids, values, better=better, judge=judge, about=about)
    unread = np.asarray([one.unread / turns for one in found])
    about = "share of turns without a verdict of the simulator"
    yield Observed("unread", language, ids, ids, unread, better="lower", judge=judge, about=about)


SUITE = Suite(_run, "mood trajectories of a simulated user, after SAGE", options=("turns",))

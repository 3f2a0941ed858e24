"""What a curriculum costs, in gradients of one row: the currency in which methods are compared."""

import bisect
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from hen_jax.curricula.shared import EmclConfig
from hen_jax.objectives.curriculum import active_tasks, competence

FORWARD = 0.5
"""A forward pass in gradients. With a frozen base a backward pass has as many products."""

JVP = 2.0
"""A `jvp` of a gradient in gradients: the gradient itself, and its derivative along one direction.
"""


ALIGNED = 0.1
"""A gradient that also tells how it lies to another, in gradients more: two adapters' columns."""

TOGETHER = ("uniform", "emcl_b", "emcl_c", "reweight", "sft")
"""Curricula that make one update of all tasks."""


class EvaluationRows(NamedTuple):
    """Rows of one task in one episode."""

    support: int  # of one inner step
    query: int


def active_by_step(config: EmclConfig, tasks: int, steps: int) -> np.ndarray:
    """How many tasks learn at each step, [steps]."""
    if config.curriculum in TOGETHER:
        return np.full(steps, tasks)
    share = competence(jnp.arange(steps), steps, config.initial_competence)
    return np.asarray(active_tasks(share, tasks))


def outer_updates(config: EmclConfig, tasks: int, steps: int) -> np.ndarray:
    """Updates of the parameters at each step, [steps]."""
    inner = {"emcl_b": tasks, "uniform": 0, "sft": 0}.get(config.curriculum, config.inner_steps)
    if config.curriculum == "reweight" and config.mode == "first_order":
        inner = 0
    each = 1 + inner * config.carry
    if config.curriculum in TOGETHER:
        return np.full(steps, each)
    return each * active_by_step(config, tasks, steps)


def evaluations(config: EmclConfig, rows: EvaluationRows, tasks: int, steps: int) -> np.ndarray:
    """Gradient evaluations at each step, [steps], in rows.

    A forward pass counts `FORWARD` and a `jvp` of a gradient `JVP`. Reverse over reverse is counted
    as forward over reverse, and `implicit` by its ten products.
    """
    active = active_by_step(config, tasks, steps)
    inner = config.inner_steps * rows.support
    measured = inner + FORWARD * rows.query
    learnt = measured if config.mode == "reptile" else inner + _back(config, rows) + rows.query
    match config.curriculum:
        case "sft":
            return active * (inner + rows.query)
        case "reweight" if config.mode == "first_order":
            return active * (inner * (1 + ALIGNED) + rows.query)
        case "reweight":
            return active * (inner * (1 + FORWARD + JVP) + rows.query)
        case "emcl_b":
            at_places = tasks * (config.sharing or tasks)
            return np.full(steps, at_places * rows.support * (1 + JVP) + tasks * rows.query)
        case "emcl_a":
            fresh = config.difficulty == "fresh"
            looked_at = tasks if fresh else (tasks - active) * (np.arange(steps) == 0)
            return active * learnt + looked_at * measured
        case _:
            return active * learnt


def steps_within(config: EmclConfig, rows: EvaluationRows, tasks: int, budget: float) -> int:
    """The most steps whose gradient evaluations stay within `budget`."""
    candidates = range(1, int(budget) + 2)
    return bisect.bisect_right(
        candidates, budget, key=lambda steps: evaluations(config, rows, tasks, steps).sum()
    )


def _back(config: EmclConfig, rows: EvaluationRows) -> float:
    """From the query's gradient back to the start."""
    products = {"first_order": 0, "implicit": 10}.get(config.mode, config.inner_steps)
    return JVP * products * rows.support

"""The suites of `hen evaluate` by name: another one is a module with a `SUITE` and a line here."""

from collections.abc import Sequence
from importlib import import_module

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Suite

SUITES = {
    "empathy": "hen_jax.evaluation.suites.empathy",
    "judges": "hen_jax.evaluation.suites.judges",
    "high_context": "hen_jax.evaluation.suites.high_context",
    "overlap": "hen_jax.evaluation.suites.overlap",
    "perplexity": "hen_jax.evaluation.suites.perplexity",
    "crossed": "hen_jax.evaluation.suites.crossed",
    "sentiment": "hen_jax.evaluation.suites.sentiment",
    "cost": "hen_jax.evaluation.suites.cost",
}
"""Name -> the module whose `SUITE` it is, imported when it is asked for: each brings libraries."""


def suites_named(names: Sequence[str]) -> dict[str, Suite]:
    """The suites of those names, in their order. Raises `InputError` where there is none."""
    for name in names:
        if name not in SUITES:
            raise InputError(f"--suite {name!r}; allowed: {', '.join(SUITES)}")
    return {name: import_module(SUITES[name]).SUITE for name in names}

"""The suites of `hen evaluate` by name: another one is a module with a `SUITE` and a line here."""

from collections.abc import Iterable, Sequence
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
    "hen-bench@1": "hen_jax.measures.suites.hen_bench",
    "long_conversations": "hen_jax.measures.suites.long_conversations",
    "counterfactuals": "hen_jax.measures.suites.counterfactuals",
    "culture": "hen_jax.measures.suites.culture",
    "safety": "hen_jax.measures.suites.safety",
    "over_empathy": "hen_jax.measures.suites.over_empathy",
    "trajectory": "hen_jax.measures.suites.trajectory",
    "eqbench3": "hen_jax.measures.suites.eqbench3",
    "emobench": "hen_jax.measures.suites.emobench",
    "eqbench": "hen_jax.measures.suites.eqbench",
    "emotionbench": "hen_jax.measures.suites.emotionbench",
    "erc": "hen_jax.measures.suites.erc",
    "reccon": "hen_jax.measures.suites.reccon",
    "epitome": "hen_jax.measures.suites.epitome",
    "lexicon": "hen_jax.measures.suites.lexicon",
    "empathetic_dialogues": "hen_jax.measures.suites.empathetic_dialogues",
    "instrument": "hen_jax.measures.suites.instrument",
    "experts": "hen_jax.verbs.evaluate.experts_suite",
}
"""Name -> the module whose `SUITE` it is, imported when it is asked for: each brings libraries."""


def suites_named(names: Sequence[str], options: Iterable[str] = ()) -> dict[str, Suite]:
    """The suites of those names, in their order.

    Raises:
      InputError: there is none of a name, or none of them reads one of these options.
    """
    for name in names:
        if name not in SUITES:
            raise InputError(f"--suite {name!r}; allowed: {', '.join(SUITES)}")
    found: dict[str, Suite] = {name: import_module(SUITES[name]).SUITE for name in names}
    known = list(dict.fromkeys(key for suite in found.values() for key in suite.options))
    for key in options:
        if key not in known:
            told = f"allowed: {', '.join(known)}" if known else "they read none"
            raise InputError(f"--option {key}: not read by {', '.join(found)}; {told}")
    return found

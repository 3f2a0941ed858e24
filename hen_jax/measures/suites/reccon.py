"""RECCON's causal entailment as a suite: `--option reccon=FILE` of its subtask 2."""

from collections.abc import Iterator

from hen_jax.evaluation.suite import Found, Suite, SuiteContext
from hen_jax.measures.suites.asking import accuracies, by_label, file_options, spread
from hen_jax.measures.suites.labelled import f1_figures
from hen_jax.measures.tasks.reccon import cause_items, read_entailments


def _run(context: SuiteContext) -> Iterator[Found]:
    files = file_options(context, "reccon", "a CSV of RECCON's subtask 2")
    items = [item for file in files for item in cause_items(read_entailments(file))]
    way, choices = by_label(context, spread(items, context), {})
    yield from accuracies(choices, way, lambda one: "all")
    yield from f1_figures(choices, "all", ("macro",))
    yield from (one._replace(measure="positive_f1") for one in _one(choices, "no"))
    yield from (one._replace(measure="negative_f1") for one in _one(choices, "yes"))


def _one(choices, other: str) -> Iterator[Found]:
    yield from f1_figures(choices, "all", ("macro",), (other,))


SUITE = Suite(_run, "RECCON: does an utterance cause the emotion of another")

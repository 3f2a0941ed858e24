"""EPITOME's levels as a suite: `--option ER=FILE`, `IP=FILE` and `EX=FILE`, one or more."""

from collections.abc import Iterator

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Suite, SuiteContext
from hen_jax.measures.suites.asking import accuracies, by_label, file_options, spread
from hen_jax.measures.suites.labelled import f1_figures
from hen_jax.measures.tasks.epitome import MECHANISMS, epitome_items, read_epitome


def _run(context: SuiteContext) -> Iterator[Found]:
    named = [name for name in MECHANISMS if name in context.options]
    if not named:
        raise InputError("--option ER=FILE (or IP=, EX=): not given; give a file of EPITOME")
    for name in named:
        [file] = file_options(context, name, "one file of EPITOME")
        items = spread(epitome_items(read_epitome(file), name), context)
        way, choices = by_label(context, items, {"no": "none", "0": "none"})
        yield from accuracies(choices, way, lambda one: one.item.aspect)
        yield from f1_figures(choices, name, ("macro",))


SUITE = Suite(_run, "EPITOME: levels of emotional reactions, interpretations, explorations")

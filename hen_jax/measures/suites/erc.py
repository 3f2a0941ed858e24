"""Emotion recognition as a suite: `--option erc=FILE --option set=meld`, or another of the four."""

from collections.abc import Iterator

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Suite, SuiteContext
from hen_jax.measures.suites.asking import accuracies, by_label, file_options, spread
from hen_jax.measures.suites.labelled import f1_figures
from hen_jax.measures.tasks.erc import LABEL_SETS, aliases, erc_items, named_set
from hen_jax.measures.tasks.erc_files import read_erc


def _run(context: SuiteContext) -> Iterator[Found]:
    name = context.options.get("set", "")
    if not name:
        raise InputError(f"--option set=NAME: not given; allowed: {', '.join(LABEL_SETS)}")
    of = named_set(name)
    files = file_options(context, "erc", f"the official file of {name}")
    said = [one for file in files for one in read_erc(file, name)]
    way, choices = by_label(context, spread(erc_items(said, name), context), aliases(name))
    yield from accuracies(choices, way, lambda one: name)
    yield from f1_figures(choices, name)
    yield from f1_figures(choices, name, ("micro",), (of.neutral,) if of.neutral else ())


SUITE = Suite(_run, "emotion recognition in conversation: MELD, EmoryNLP, IEMOCAP, DailyDialog")

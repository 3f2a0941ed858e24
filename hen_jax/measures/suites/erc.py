"""Emotion recognition as a suite: `--option erc=FILE --option set=meld`, or another of the four."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Suite, SuiteContext
from hen_jax.measures.suites.asking import accuracies, by_label, spread
from hen_jax.measures.suites.labelled import f1_figures, majority_floor
from hen_jax.measures.suites.options import file_options
from hen_jax.measures.tasks.erc import LABEL_SETS, Utterance, aliases, erc_items, named_set
from hen_jax.measures.tasks.erc_files import read_erc


def _run(context: SuiteContext) -> Iterator[Found]:
    name = context.options.get("set", "")
    if not name:
        raise InputError(f"--option set=NAME: not given; allowed: {', '.join(LABEL_SETS)}")
    of = named_set(name)
    files = file_options(context, "erc", f"the official file of {name}")
    said = _utterances(files, name)
    way, choices = by_label(context, spread(erc_items(said, name), context), aliases(name))
    yield from accuracies(choices, way, lambda one: name)
    left = (of.neutral,) if of.neutral else ()
    for line in (*f1_figures(choices, name), *f1_figures(choices, name, ("micro",), left)):
        published = ", the published measure" if line.measure == of.headline else ""
        yield line._replace(about=line.about + published)
    yield from majority_floor(context, choices, name)


def _utterances(files: Sequence[Path], name: str) -> list[Utterance]:
    """Of all files; each numbers its dialogues from the same start, so several are told apart."""
    found = [read_erc(file, name) for file in files]
    if len(found) == 1:
        return found[0]
    return [
        dataclasses.replace(one, dialogue=f"{number}/{one.dialogue}")
        for number, own in enumerate(found, start=1)
        for one in own
    ]


SUITE = Suite(
    _run,
    "emotion recognition in conversation: MELD, EmoryNLP, IEMOCAP, DailyDialog",
    options=("erc", "set", "ask"),
)

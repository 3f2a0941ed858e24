"""RECCON as a suite: what causes an emotion. `--option reccon=FILE` of its subtask 2 (entailment),
`spans=FILE` of subtask 1 (spans), `annotation=FILE` of the original dialogues (causes by distance).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.choices import Choice
from hen_jax.measures.suites.asking import accuracies, by_label, said, spread
from hen_jax.measures.suites.labelled import f1_figures, majority_floor
from hen_jax.measures.suites.options import file_options
from hen_jax.measures.tasks.reccon import (
    SpanQuestion,
    annotated_causes,
    cause_items,
    read_annotation,
    read_entailments,
    read_spans,
    span_prompt,
    spans_spread,
)
from hen_jax.measures.tasks.reccon_scores import SpanValues, none_f1, read_span, span_values

_FILES = {
    "reccon": "a CSV of RECCON's subtask 2",
    "spans": "a JSON file of RECCON's subtask 1",
    "annotation": "a JSON file of RECCON's original annotation",
}


def _run(context: SuiteContext) -> Iterator[Found]:
    if not set(_FILES) & set(context.options):
        wanted = ", ".join(f"{key}=FILE: {what}" for key, what in _FILES.items())
        raise InputError(f"--option: none of {wanted}; give one or more, which hen_jax has not")
    files = {key: file_options(context, key, what) for key, what in _FILES.items()
             if key in context.options}  # fmt: skip
    if "reccon" in files:
        items = [item for file in files["reccon"] for item in cause_items(read_entailments(file))]
        way, choices = by_label(context, spread(items, context), {})
        yield from accuracies(choices, way, lambda one: "all")
        yield from _entailment(context, choices, "all")
    if "annotation" in files:
        dialogues = {f"{file.stem}/{name}": turns for file in files["annotation"]
                     for name, turns in read_annotation(file).items()}  # fmt: skip
        items = annotated_causes(dialogues)
        if not items:
            told = ", ".join(map(str, files["annotation"]))
            raise InputError(f"--option annotation={told}: no turn has an emotion")
        way, choices = by_label(context, spread(items, context), {})
        yield from accuracies(choices, way, lambda one: one.item.aspect)
        for distance in dict.fromkeys(one.item.aspect for one in choices):
            own = [one for one in choices if one.item.aspect == distance]
            yield from _entailment(context, own, distance)
    if "spans" in files:
        questions = [one for file in files["spans"] for one in read_spans(file)]
        yield from _spans(context, spans_spread(questions, context.limit))


def _entailment(context: SuiteContext, choices: Sequence[Choice], group: str) -> Iterator[Found]:
    """F1 of "it causes", of "it does not", and their mean."""
    yield from f1_figures(choices, group, ("macro",))
    for name, other in (("positive", "no"), ("negative", "yes")):
        for line in f1_figures(choices, group, ("macro",), (other,)):
            yield line._replace(measure=f"{name}_f1")
    yield from majority_floor(context, choices, group, ("macro",))


def _spans(context: SuiteContext, questions: Sequence[SpanQuestion]) -> Iterator[Found]:
    asked = [span_prompt(one) for one in questions]
    replies = said(context, [f"span/{one.id}" for one in questions], asked)
    given = [read_span(reply.text) for reply in replies]
    pairs = [(one.answer, found) for one, found in zip(questions, given, strict=True)]
    ids, hashed = [one.id for one in questions], prompts_hash(asked)
    groups = [one.group for one in questions]

    def line(measure: str, values: np.ndarray, about: str, **more) -> Observed:
        return Observed(measure, "spans", ids, groups, values, better="higher",
                        prompt_hash=hashed, about=about, **more)  # fmt: skip

    rows = [span_values(*pair) for pair in pairs]
    positive = np.asarray([bool(truth) for truth, _ in pairs])
    for at, name in enumerate(SpanValues._fields):
        values = 100 * np.asarray([row[at] for row in rows])
        yield line(name, np.where(positive, values, np.nan), "percent, where there is a cause")
        if name.endswith("f1"):
            yield line(f"{name}_all", values, "percent, over all questions")
    counts = np.asarray([[not t and not p, not t, not p] for t, p in pairs], float)
    yield line("none_f1", counts, "percent: F1 of 'there is no cause here'", figure=none_f1)


SUITE = Suite(
    _run,
    "RECCON: what causes an emotion: entailment, spans, by distance",
    options=(*_FILES, "ask"),
)

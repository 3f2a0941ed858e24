"""EPITOME as a suite: `--option ER=FILE`, `IP=FILE` and `EX=FILE`, one or more: levels, and with
`--option rationales=yes` the words that show them."""

from collections.abc import Iterator, Sequence

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.suites.asking import accuracies, by_label, said, spread
from hen_jax.measures.suites.labelled import f1_figures, majority_floor
from hen_jax.measures.suites.options import one_file
from hen_jax.measures.tasks.epitome import (
    MECHANISMS,
    EpitomePair,
    epitome_items,
    quoted_spans,
    rationale_prompt,
    rationale_values,
    read_epitome,
)


def _run(context: SuiteContext) -> Iterator[Found]:
    named = [name for name in MECHANISMS if name in context.options]
    if not named:
        raise InputError("--option ER=FILE (or IP=, EX=): not given; give a file of EPITOME")
    rationales = context.options.get("rationales", "no")
    if rationales not in ("yes", "no"):
        raise InputError(f"--option rationales={rationales}; allowed: yes, no")
    for name in named:
        file = one_file(context, name, "one file of EPITOME")
        pairs = read_epitome(file)
        items = spread(epitome_items(pairs, name), context)
        way, choices = by_label(context, items, {"no": "none", "0": "none"})
        yield from accuracies(choices, way, lambda one: one.item.aspect)
        yield from f1_figures(choices, name, ("macro",))
        yield from majority_floor(context, choices, name, ("macro",))
        if rationales == "yes":
            taken = {item.id for item in items}
            own = [pair for pair in pairs if f"{name}/{pair.id}" in taken]
            yield from _rationales(context, own, name)


def _rationales(context: SuiteContext, pairs: Sequence[EpitomePair], name: str) -> Iterator[Found]:
    """How well quoted words meet the true ones, beside taking the whole response."""
    asked = [rationale_prompt(pair, name) for pair in pairs]
    ids = [f"{name}/{pair.id}/rationale" for pair in pairs]
    replies = said(context, ids, asked)
    ours = [quoted_spans(reply.text, pair.response)
            for reply, pair in zip(replies, pairs, strict=True)]  # fmt: skip
    whole = [((0, len(pair.response)),) for pair in pairs]
    told = [("", ours), *([("control_whole_", whole)] if context.arm == context.first else [])]
    for lead, spans in told:
        values = np.asarray(
            [rationale_values(pair.response, pair.spans, own)
             for pair, own in zip(pairs, spans, strict=True)]
        )  # fmt: skip
        for measure, column in zip(("rationale_token_f1", "rationale_iou_f1"), values.T,
                                   strict=True):  # fmt: skip
            yield Observed(
                lead + measure, name, ids, [pair.id.partition("_")[0] for pair in pairs],
                100 * column, better="" if lead else "higher",
                prompt_hash=prompts_hash(asked), about="percent, mean over responses",
            )  # fmt: skip


SUITE = Suite(
    _run,
    "EPITOME: levels of emotional reactions, interpretations, explorations; rationales",
    options=(*MECHANISMS, "rationales", "ask"),
)

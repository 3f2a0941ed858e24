"""Figures of labelled tasks: the published F1 of each set, as functions of sums over items."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from hen_jax.evaluation.suite import Found, Observed, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.choices import Choice
from hen_jax.measures.suites.asking import observed


def f1_figures(
    choices: Sequence[Choice],
    group: str,
    kinds: Sequence[str] = ("macro", "weighted"),
    leave_out: Sequence[str] = (),
) -> Iterator[Observed]:
    """Macro, weighted and micro F1 in percent, with intervals by the items' groups.

    Sums over items of three counts for each label (right, named, true) give every one of them.
    """
    labels = choices[0].item.options
    table = np.zeros((len(choices), 3, len(labels)))
    for row, one in zip(table, choices, strict=True):
        row[2, one.item.answer] = 1
        if one.chosen is not None:
            row[1, one.chosen] = 1
            row[0, one.chosen] = float(one.right)
    kept = np.asarray([label not in leave_out for label in labels])
    hashed = prompts_hash([one.item.messages for one in choices])
    for kind in kinds:
        yield Observed(
            f"{kind}_f1",
            group,
            [one.item.id for one in choices],
            [one.item.group for one in choices],
            table.reshape(len(choices), -1),
            lambda sums, kind=kind: f1_of(sums, kept, kind),
            better="higher",
            prompt_hash=hashed,
            about="percent" + (f", without {', '.join(leave_out)}" if leave_out else ""),
        )


def majority_floor(
    context: SuiteContext,
    choices: Sequence[Choice],
    group: str,
    kinds: Sequence[str] = ("macro", "weighted"),
) -> Iterator[Found]:
    """What always answering the commonest label of these items gives, in the first arm's rows.

    Of MELD's test set 48.12 % are neutral: 31.27 weighted F1.
    """
    if context.arm != context.first:
        return
    counts = Counter(one.item.answer for one in choices)
    commonest = max(sorted(counts), key=counts.__getitem__)
    always = [one._replace(chosen=commonest) for one in choices]
    about = f"always {choices[0].item.options[commonest]!r}"
    lines = [
        observed("accuracy", group, always, lambda one: float(one.right), about),
        *f1_figures(always, group, kinds),
    ]
    for line in lines:
        yield line._replace(measure=f"control_majority_{line.measure}", better="", about=about)


def f1_of(sums: np.ndarray, kept: np.ndarray, kind: str) -> np.ndarray:
    """F1 in percent of sums `[..., 3 C]` (right, named, true); a label of neither counts 0."""
    right, named, true = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    right, named, true = right[..., kept], named[..., kept], true[..., kept]
    if kind == "micro":
        both = named.sum(-1) + true.sum(-1)
        return 200 * right.sum(-1) / np.maximum(both, 1)
    f1 = 2 * right / np.maximum(named + true, 1)
    if kind == "macro":
        return 100 * f1.mean(-1)
    return 100 * (f1 * true).sum(-1) / np.maximum(true.sum(-1), 1)

"""EmpatheticDialogues as a suite: `--option ed=FILE`, an official CSV.

Which of 32 emotions the speaker has; with `--option turns=100` also the arm's replies to that many
listener turns: distinct-1 and -2, the share of different ones.
"""

from collections.abc import Iterator, Sequence

from hen_jax.data.empathetic_dialogues import EmpatheticDialogue, check_empathetic_dialogues
from hen_jax.evaluation.suite import Corpus, Found, Suite, SuiteContext
from hen_jax.measures.suites.asking import accuracies, by_label, said, spread
from hen_jax.measures.suites.labelled import f1_figures, majority_floor
from hen_jax.measures.suites.options import one_file, whole_number
from hen_jax.measures.tasks.empathetic_dialogues import (
    distinct_diversity,
    emotion_items,
    listener_turns,
)


def _run(context: SuiteContext) -> Iterator[Found]:
    file = one_file(context, "ed", "a CSV of EmpatheticDialogues, such as test.csv")
    turns = whole_number(context, "turns", 0, 0, 1_000_000)
    dialogues = check_empathetic_dialogues(file).records
    way, choices = by_label(context, spread(emotion_items(dialogues), context), {})
    yield from accuracies(choices, way, lambda one: one.item.aspect)
    yield from f1_figures(choices, "emotion", ("macro",))
    yield from majority_floor(context, choices, "emotion", ("macro",))
    if turns:
        yield from _variety(context, dialogues, turns)


def _variety(
    context: SuiteContext, dialogues: Sequence[EmpatheticDialogue], most: int
) -> Iterator[Found]:
    """Of the arm's replies, and in the first arm's rows of the listeners' own."""
    every = [(one, *turn) for one in dialogues for turn in listener_turns(one)]
    count = min(most, len(every))
    taken = [every[at * len(every) // count] for at in range(count)]
    names = [f"{one.id}/{len(shown)}" for one, shown, _ in taken]
    replies = said(context, names, [shown for _, shown, _ in taken])
    groups = [one.situation for one, _, _ in taken]
    yield from _figures([reply.text for reply in replies], groups, "")
    if context.arm == context.first:
        yield from _figures([own for _, _, own in taken], groups, "control_listener_")


def _figures(texts: Sequence[str], groups: Sequence[str], lead: str) -> Iterator[Corpus]:
    whole = distinct_diversity(texts)
    without = {
        group: distinct_diversity([x for x, own in zip(texts, groups, strict=True) if own != group])
        for group in dict.fromkeys(groups)
    }
    for name, value in whole.items():
        left = {group: row[name] for group, row in without.items()}
        yield Corpus(lead + name, "listener turns", value, left, len(texts),
                     about="percent, whitespace tokens, every n-gram")  # fmt: skip


SUITE = Suite(
    _run,
    "EmpatheticDialogues: emotions of speakers, variety of replies to them",
    options=("ed", "turns", "ask"),
)

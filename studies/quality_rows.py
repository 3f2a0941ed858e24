"""What the study of reward quality asks: which of two replies is right at a prompt.

Folds keep items (crossed sets), statements (HED) and base conversations (steered) whole.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.core.types import Batch
from hen_jax.data import samples
from hen_jax.data.comparisons import turn_pairs
from hen_jax.data.crossed import (
    CROSSINGS,
    Crossing,
    crossed_pairs,
    personality_crossings,
    role_crossings,
    statement_crossings,
    turn_crossings,
)
from hen_jax.data.examples import Shifted
from hen_jax.data.hed import HedRecord
from hen_jax.data.packing import lay_out_row, stack_rows
from hen_jax.data.preferences import Pair, hed_pairs, steered_pair
from hen_jax.data.rated import HIDDEN
from hen_jax.data.schemas import read_records
from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.text.chat import render_all, render_prompt
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.tokenizer import ChatTokenizer

FOLDS = 5
WIDTHS = (96, 128, 160, 192, 224, 288, 384, 512, 768)
"""Rows are padded to one of these, so that few programs are compiled."""

NOTHING = (Message("user", HIDDEN),)
"""The prompt of a reply that nothing was said before."""


class Question(NamedTuple):
    """A pair, and what is needed to deal it out and to train it."""

    pair: Pair  # the right reply is the chosen one
    set: str  # the row of the table it counts in
    fold: int
    hand: int  # 1 or 2: who wrote it
    couple: str  # of a crossing both questions have the same; others have one of their own

    @property
    def replies(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """The right one first."""
        return self.pair.chosen, self.pair.rejected


class Row(NamedTuple):
    """A prompt with its replies as inputs and targets; the prompt's last token is each reply's."""

    documents: tuple[Shifted, ...]
    prefix: int

    @property
    def length(self) -> int:
        """Positions without padding."""
        return self.prefix + sum(len(one.tokens) - self.prefix for one in self.documents)

    @property
    def trained(self) -> int:
        """Positions whose prediction counts."""
        return sum(int(one.mask.sum()) for one in self.documents)


def crossed_questions(language: str = "en") -> list[Question]:
    """The shipped items of a language."""
    found = []
    for kind in CROSSINGS:
        path = samples.path(f"crossed/{kind}.{language}.jsonl")
        items: list[Crossing] = read_records(path, "crossed")
        fold = folds_of(item.id for item in items)
        found += [one for item in items for one in _both(item, f"crossed/{kind}", fold[item.id])]
    return found


def hed_questions(language: str = "en") -> list[Question]:
    """Crossings built from HED within each fold, so that no statement is in two."""
    records: list[HedRecord] = read_records(samples.path(f"hed/hed.{language}.jsonl"), "hed")
    fold = folds_of({record.statement_id for record in records})
    builders = {
        "statement": statement_crossings,
        "role": role_crossings,
        "personality": personality_crossings,
    }
    found = []
    for number in range(FOLDS):
        mine = [record for record in records if fold[record.statement_id] == number]
        for name, build in builders.items():
            for crossing in build(mine):
                found += _both(crossing, f"hed/{name}", number)
    return found


def hed_plain(language: str = "en") -> list[Question]:
    """Each HED reply against its own rejected ones: what a bag of words tells too."""
    records: list[HedRecord] = read_records(samples.path(f"hed/hed.{language}.jsonl"), "hed")
    fold = folds_of({record.statement_id for record in records})
    return [
        Question(pair, "plain/hed", fold[record.statement_id], 1, pair.id)
        for record in records
        for pair in hed_pairs(record)
    ]


def hard_questions() -> list[Question]:
    """The steered hard pairs turn by turn; a conversation is right by the sum over its turns."""
    found = []
    for context in CONTEXTS:
        records = read_records(samples.path(f"eea/{context}.hard.jsonl"), "steered")
        fold = folds_of(record.group for record in records)
        for record in records:
            for pair in turn_pairs(steered_pair(record)):
                found.append(Question(pair, "hard", fold[record.group], 1, pair.id))
        for number in range(FOLDS):
            mine = [record for record in records if fold[record.group] == number]
            for crossing in turn_crossings(mine):
                found += _both(crossing, "hard/turn", number)
    return found


def folds_of(names: Iterable[str]) -> dict[str, int]:
    """Names dealt to folds of equal size, by hash."""

    def key(name: str) -> bytes:
        return hashlib.sha256(f"reward quality\0{name}".encode()).digest()

    return {name: at % FOLDS for at, name in enumerate(sorted(set(names), key=key))}


def _both(crossing: Crossing, name: str, fold: int) -> list[Question]:
    return [
        Question(pair, name, fold, crossing.hand, crossing.id) for pair in crossed_pairs(crossing)
    ]


def laid_row(
    prompt: Sequence[Message], replies: Sequence[tuple[Message, ...]], words: ChatTokenizer
) -> Row:
    """The row of a prompt; what a format writes after the stop token is left out."""
    rendered = render_all([Conversation((*prompt, *reply)) for reply in replies], words)
    start = len(render_prompt(prompt, words))
    documents = []
    for one in rendered:
        mask = one.mask.copy()
        mask[:start] = False
        end = int(np.flatnonzero(mask)[-1]) + 1
        documents.append(Shifted(one.tokens[: end - 1], one.tokens[1:end], mask[1:end]))
    return Row(tuple(documents), start - 1)


def width_of(length: int) -> int:
    """The padded length of a row."""
    return next(width for width in WIDTHS if length <= width)


def laid_batch(rows: Sequence[Row], width: int, size: int) -> Batch:
    """Rows of one width, with padding up to `size` of them."""
    laid = [lay_out_row(row.documents, width, row.prefix) for row in rows]
    return stack_rows(laid + [lay_out_row([], width)] * (size - len(rows)))


def row_key(row: Row) -> str:
    """What names a row in the file of frozen log-probabilities."""
    digest = hashlib.sha256()
    for one in row.documents:
        digest.update(one.tokens.tobytes() + one.targets.tobytes() + b"/")
    return digest.hexdigest()[:24]


def in_folds(questions: Iterable[Question], folds: set[int]) -> list[Question]:
    """Those of some folds."""
    return [one for one in questions if one.fold in folds]


def described(questions: Sequence[Question]) -> dict[str, Any]:
    """How many questions of each set."""
    return {
        name: sum(one.set == name for one in questions)
        for name in sorted({one.set for one in questions})
    }

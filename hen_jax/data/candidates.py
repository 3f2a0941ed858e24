"""Candidates to one context with a label each, and the reply that was really given (Muffin).

A line is `{"prompt": TEXT or messages, "gold": TEXT, "candidates": [TEXT, ...], "helpful": [1, 0,
null, ...]}`; null is a candidate of which it is not known.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data import fields, outside
from hen_jax.data.comparisons import Compared, common_start
from hen_jax.data.conversations import COLUMNS, group_of, messages_field, turns, with_opening
from hen_jax.data.rows import Row
from hen_jax.text.chat import render_all
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.tokenizer import ChatTokenizer


@dataclasses.dataclass(frozen=True)
class Candidates:
    """A context, the reply that was given, and other replies of which some are helpful."""

    id: str
    group: str
    prompt: tuple[Message, ...]
    gold: str
    candidates: tuple[str, ...]
    helpful: tuple[bool | None, ...]


def parse_candidates(row: Row) -> Candidates:
    """One row.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    outside.refuse(row, outside.IN_ROWS)
    column = next((one for one in COLUMNS if one in row), None)
    said = turns(row, "prompt", "user") if column is None else messages_field(row, column)
    prompt = with_opening(row, said, column or "prompt")
    texts, labels = (fields.from_text(row.get(key)) for key in ("candidates", "helpful"))
    if not isinstance(texts, list) or not texts:
        raise InputError("candidates: missing; give a list of texts")
    replies = tuple(fields.text_field({f"candidates[{at}]": x}, f"candidates[{at}]")
                    for at, x in enumerate(texts))  # fmt: skip
    if not isinstance(labels, list) or len(labels) != len(texts):
        raise InputError(f"helpful: give a list of {len(texts)}: 1, 0 or null for each candidate")
    known = tuple(None if x is None else fields.truth_field({"helpful": x}, "helpful")
                  for x in labels)  # fmt: skip
    gold = fields.text_field(row, "gold")
    return Candidates(
        fields.name_field(row, "id"), group_of(row, prompt), prompt, gold, replies, known
    )


def candidate_rows(
    found: Sequence[Candidates], tokenizer: ChatTokenizer, row_length: int
) -> tuple[list[Compared], tuple[str, ...]]:
    """Each context with its replies as one row, the given reply first; and the ids of those that do
    not fit.

    `wins[i, j]` is 1 where candidate i is helpful and j is not, `marks[0, 0]` is 1: what a
    cross-entropy trains. Candidates that are equal are one, helpful if any of them is; one that is
    equal to the given reply is left out.
    """
    items = [_distinct(one) for one in found]
    conversations = [
        Conversation((*_read_only(one.prompt), Message("assistant", text)))
        for one in items
        for text in (one.gold, *one.candidates)
    ]
    rendered = iter(render_all(conversations, tokenizer))
    rows = [_row(one, [next(rendered) for _ in (one.gold, *one.candidates)]) for one in items]
    fitting = [row for row in rows if row.length <= row_length]
    return fitting, tuple(row.id for row in rows if row.length > row_length)


def _distinct(one: Candidates) -> Candidates:
    labels: dict[str, bool | None] = {}
    for text, label in zip(one.candidates, one.helpful, strict=True):
        if text.strip() != one.gold.strip():
            before = labels.get(text)
            labels[text] = label if before is None else before or bool(label)
    return dataclasses.replace(one, candidates=tuple(labels), helpful=tuple(labels.values()))


def _read_only(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(
        dataclasses.replace(one, trains=False) if one.role == "assistant" else one
        for one in messages
    )


def _row(one: Candidates, rendered: Sequence) -> Compared:
    sides = []
    for found in rendered:
        end = int(np.flatnonzero(found.mask)[-1]) + 1
        weights = found.mask[1:end].astype(np.float32)
        sides.append((found.tokens[: end - 1], found.tokens[1:end], weights))
    inputs, targets, weights = zip(*sides, strict=True)
    first = min(int(np.flatnonzero(weight)[0]) for weight in weights)
    prefix = min(common_start(inputs), first) if len(inputs) > 1 else 0
    K = len(inputs)
    good = np.asarray([False, *(label is True for label in one.helpful)])
    bad = np.asarray([False, *(label is False for label in one.helpful)])
    wins = (good[:, None] & bad[None]).astype(np.float32)
    nothing, marks = np.zeros((K, K), np.float32), np.zeros((K, 2), np.float32)
    marks[0, 0] = 1
    known = (wins, nothing, nothing)
    return Compared(one.id, one.group, "", inputs, prefix, *known, (), targets, weights, marks)

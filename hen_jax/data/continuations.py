"""Replies that a policy is trained on: token ids, what each counts for, and who was preferred.

The rows are those of compared replies, a prompt once and its replies behind it, but inputs stand
beside the tokens that they predict. Nothing in the common part trains: it ends before the position
that predicts the first token of a reply. Of two conversations only the turns that differ count, and
those that both begin with are computed once.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data.comparisons import (
    Compared,
    JudgedReply,
    Taken,
    common_start,
    known_of,
    replies_of,
)
from hen_jax.data.preferences import Labelled, Pair
from hen_jax.text.chat import Rendered, render_all
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.tokenizer import ChatTokenizer

_Turns = tuple[Message, ...]


class _Reply(NamedTuple):
    """A continuation, and what each of its assistant turns counts for; 0: it is only read."""

    turns: _Turns
    weights: tuple[float, ...]


class _Item(NamedTuple):
    """What is known of the replies to one prompt, before they are token ids."""

    prompt: _Turns
    replies: list[_Reply]
    judged: tuple[JudgedReply, ...]
    marks: np.ndarray  # [K, 2], as in `Compared`
    named: Pair | Labelled  # the first record, whose id it has


def continuations(
    records: Sequence[Pair | Labelled],
    tokenizer: ChatTokenizer,
    *,
    row_length: int,
    shared: bool = True,
    discount: float = 1.0,
) -> Taken:
    """Brings the records of each prompt together and renders them, as `render_comparisons` does.

    Pairs whose continuations have several assistant turns stay by themselves, as which turns count
    depends on the pair: those that differ, the `k`-th of a continuation (from 0) `discount ** k`
    times the pair's own `turn_weights`. A reply is never cut: what does not fit in a row is
    `dropped`, and a pair with a side of which nothing counts is `silent`.

    Raises:
      InputError: two replies of a pair that are the same tokens, a pair with a margin, which no
        objective here has a place for, or a labelled conversation that does not end with a reply.
    """
    items = _items(records, discount)
    silent = [not all(any(reply.weights) for reply in item.replies) for item in items]
    speaking = [item for item, none in zip(items, silent, strict=True) if not none]
    conversations = [
        Conversation((*_read_only(item.prompt), *_marked(reply)))
        for item in speaking
        for reply in item.replies
    ]
    rendered = iter(render_all(conversations, tokenizer))
    found = [
        _compared(item, [next(rendered) for _ in item.replies], shared=shared) for item in speaking
    ]
    return Taken(
        [one for one in found if one.length <= row_length],
        tuple(one.id for one in found if one.length > row_length),
        tuple(item.named.id for item, none in zip(items, silent, strict=True) if none),
    )


def _items(records: Sequence[Pair | Labelled], discount: float) -> list[_Item]:
    by_prompt: dict[tuple[_Turns, str], list[Pair | Labelled]] = {}
    for record in records:
        prompt, several = _asked(record)
        by_prompt.setdefault((prompt, record.id if several else ""), []).append(record)
    return [_item(prompt, found, discount) for (prompt, _), found in by_prompt.items()]


def _asked(record: Pair | Labelled) -> tuple[_Turns, bool]:
    """The prompt, and whether what its turns count for depends on the record."""
    if isinstance(record, Pair):
        if record.margin:
            raise InputError(
                f"record {record.id}: it has a margin, which only a reward model reads; leave the "
                "column out"
            )
        return record.prompt, not _plain(record)
    messages = record.conversation.messages
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise InputError(f"record {record.id}: a label is for a reply; end with the assistant's")
    return messages[:-1], False


def _item(prompt: _Turns, records: Sequence[Pair | Labelled], discount: float) -> _Item:
    pairs = [record for record in records if isinstance(record, Pair)]
    labels = [record for record in records if isinstance(record, Labelled)]
    said = [*replies_of(pairs), *(one.conversation.messages[-1:] for one in labels)]
    turns = list(dict.fromkeys(said))
    weights = {reply: _weights(reply, pairs, discount) for reply in turns}
    judged = tuple(JudgedReply(turns.index(p.chosen), turns.index(p.rejected), p) for p in pairs)
    marks = np.zeros((len(turns), 2), np.float32)
    for one in judged:
        share = one.pair.wins
        marks[one.chosen] += share, 1 - share
        marks[one.rejected] += 1 - share, share
    for one in labels:
        marks[turns.index(one.conversation.messages[-1:]), 0 if one.label else 1] += 1
    replies = [_Reply(reply, weights[reply]) for reply in turns]
    return _Item(prompt, replies, judged, marks, records[0])


def _plain(pair: Pair) -> bool:
    """Whether both sides are one reply, which counts 1."""
    said = [
        sum(message.role == "assistant" for message in side)
        for side in (pair.chosen, pair.rejected)
    ]
    return max(said) == 1 and not pair.turn_weights


def _weights(reply: _Turns, pairs: Sequence[Pair], discount: float) -> tuple[float, ...]:
    """What each assistant turn of a reply counts for."""
    if all(map(_plain, pairs)):
        return tuple(1.0 for message in reply if message.role == "assistant")
    (pair,) = pairs
    mine, other = (
        [message for message in side if message.role == "assistant"]
        for side in (reply, pair.rejected if reply == pair.chosen else pair.chosen)
    )
    own = pair.turn_weights or (1.0,) * len(mine)
    return tuple(
        0.0 if other[k : k + 1] == [message] else own[k] * discount**k
        for k, message in enumerate(mine)
    )


def _read_only(messages: _Turns) -> _Turns:
    return tuple(
        dataclasses.replace(message, trains=False) if message.role == "assistant" else message
        for message in messages
    )


def _marked(reply: _Reply) -> _Turns:
    """The turns, of which those with a weight train."""
    weights = iter(reply.weights)
    return tuple(
        dataclasses.replace(message, trains=None if next(weights) else False)
        if message.role == "assistant"
        else message
        for message in reply.turns
    )


def _compared(item: _Item, rendered: Sequence[Rendered], *, shared: bool) -> Compared:
    name = item.named.id
    for one in item.judged:
        if np.array_equal(rendered[one.chosen].tokens, rendered[one.rejected].tokens):
            raise InputError(f"record {name}: both sides are the same tokens; leave it out")
    sides = [
        _shifted(name, one, [weight for weight in reply.weights if weight])
        for one, reply in zip(rendered, item.replies, strict=True)
    ]
    inputs, targets, weights = zip(*sides, strict=True)
    first = min(int(np.flatnonzero(weight)[0]) for weight in weights)
    prefix = min(common_start(inputs), first) if shared and len(inputs) > 1 else 0
    kind = item.named.kind if isinstance(item.named, Pair) else ""
    known = (*known_of(item.judged, len(inputs)), item.judged)
    trained = (targets, weights, item.marks)
    return Compared(name, item.named.group, kind, inputs, prefix, *known, *trained)


def _shifted(
    name: str, rendered: Rendered, weights: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and what each target counts for; nothing stands after the last that does."""
    mask = rendered.mask
    starts = np.flatnonzero(mask & ~np.r_[False, mask[:-1]])
    if len(starts) != len(weights):
        raise InputError(
            f"record {name}: {len(weights)} turns count, but their tokens stand in {len(starts)} "
            "places; a turn without a token cannot train"
        )
    end = int(np.flatnonzero(mask)[-1]) + 1
    each = np.zeros(len(mask), np.float32)
    for start, weight in zip(starts, weights, strict=True):
        each[start:] = weight
    each *= mask
    return rendered.tokens[: end - 1], rendered.tokens[1:end], each[1:end]

"""What the study of reward quality asks: which of two replies is right at a prompt.

An item has one prompt or, if it is crossed, two, its two replies, and contrasts: the same
conversation under other conditions of the kind that is asked about (other roles, wishes, emotions,
personalities, statements). Folds keep items (crossed sets), statements (HED) and base conversations
(steered) whole.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.types import Batch
from hen_jax.data import samples
from hen_jax.data.comparisons import turn_pairs
from hen_jax.data.crossed import (
    CROSSINGS,
    Crossing,
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
from hen_jax.empathy.labels import LANGUAGES, PERSONALITIES, ROLE_WORDS, Language
from hen_jax.text.chat import render_all, render_prompt
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.prompts import hed_messages
from hen_jax.text.tokenizer import ChatTokenizer

FOLDS = 5
WIDTHS: tuple[int, ...] = (112, 144, 176, 224, 304, 400, 768)
"""Rows are padded to one of these, so that few programs are compiled."""

Prompt = tuple[Message, ...]


class Item(NamedTuple):
    """At prompt `i` reply `i` is right and the other wrong."""

    id: str
    set: str  # the row of the table it counts in
    group: str  # what intervals draw whole
    fold: int
    hand: int  # 1 or 2: who wrote it
    prompts: tuple[Prompt, ...]  # one, or two of a crossing
    replies: tuple[Prompt, Prompt]
    contrasts: tuple[Prompt, ...]  # to draw from

    def pairs(self) -> list[Pair]:
        """For rankers of replies: the right one first."""
        return [
            Pair(f"{self.id}/{at}", self.group, prompt, self.replies[at], self.replies[1 - at])
            for at, prompt in enumerate(self.prompts)
        ]


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


def crossed_items(language: Language = "en") -> list[Item]:
    """The shipped items of a language; contrasts have the conditions of others of their fold."""
    found = []
    for kind in CROSSINGS:
        path = samples.path(f"crossed/{kind}.{language}.jsonl")
        read: list[Crossing] = read_records(path, "crossed")
        fold = folds_of(item.id for item in read)
        known: dict[int, set[Message]] = {}
        for item in read:
            known.setdefault(fold[item.id], set()).update(one[0] for one in item.prompts)
        for item in read:
            # Of a fact there is no other version that is known to be wrong.
            others = with_others(item, 0, known[fold[item.id]])
            others = hidden_prompts(item) if kind == "fact" else others
            found.append(_item(item, f"crossed/{kind}", fold[item.id], others))
    return found


def hed_items(language: Language = "en") -> list[Item]:
    """Crossings built from HED within each fold, so that no statement is in two."""
    records: list[HedRecord] = read_records(samples.path(f"hed/hed.{language}.jsonl"), "hed")
    fold = folds_of({record.statement_id for record in records})
    emotion = {record.statement_id: record.emotion for record in records}
    found = []
    for number in range(FOLDS):
        mine = [record for record in records if fold[record.statement_id] == number]
        stated = {Message("user", record.statement) for record in mine}
        for item in statement_crossings(mine):
            others = with_others(item, -1, stated)
            found.append(_item(item, "hed/statement", number, others))
        for item in [*role_crossings(mine), *personality_crossings(mine)]:
            known = _conditions(item.kind, emotion[item.group], language)
            found.append(_item(item, f"hed/{item.kind}", number, with_others(item, 0, known)))
    return found


def _conditions(kind: str, emotion: str, language: Language) -> set[Message]:
    """The system messages with each role, or each personality, and an emotion."""
    labels = {"role": ROLE_WORDS, "personality": PERSONALITIES}[kind]
    return {
        hed_messages("", emotion=emotion, language=language, **{kind: label})[0] for label in labels
    }


def hed_plain(language: Language = "en") -> list[Item]:
    """Each HED reply against its own rejected ones: what a bag of words tells too."""
    records: list[HedRecord] = read_records(samples.path(f"hed/hed.{language}.jsonl"), "hed")
    fold = folds_of({record.statement_id for record in records})
    said = {Message("user", record.statement) for record in records}
    return [
        _single(pair, f"plain/{pair.kind}", fold[record.statement_id], said)
        for record in records
        for pair in hed_pairs(record)
    ]


def hard_items() -> list[Item]:
    """The steered hard pairs turn by turn, and crossings of their turns.

    A conversation is right by the sum over its turns; its turns are named after it.
    """
    found = []
    for context in CONTEXTS:
        records = read_records(samples.path(f"eea/{context}.hard.jsonl"), "steered")
        fold = folds_of(record.group for record in records)
        said = {Message("user", turn.user) for record in records for turn in record.turns}
        for record in records:
            pairs = turn_pairs(steered_pair(record))
            found += [_single(pair, "hard", fold[record.group], said) for pair in pairs]
        for number in range(FOLDS):
            mine = [record for record in records if fold[record.group] == number]
            for item in turn_crossings(mine):
                found.append(_item(item, "hard/turn", number, with_others(item, -1, said)))
    return found


def every_item() -> list[Item]:
    """All that the study asks, in both languages."""
    of = [
        make(language) for language in LANGUAGES for make in (crossed_items, hed_items, hed_plain)
    ]
    return [*(item for items in of for item in items), *hard_items()]


def folds_of(names: Iterable[str]) -> dict[str, int]:
    """Names dealt to folds of equal size, by hash."""

    def key(name: str) -> bytes:
        return hashlib.sha256(f"reward quality\0{name}".encode()).digest()

    return {name: at % FOLDS for at, name in enumerate(sorted(set(names), key=key))}


def _item(item: Crossing, name: str, fold: int, contrasts: tuple[Prompt, ...]) -> Item:
    first, second = ((Message("assistant", reply),) for reply in item.replies)
    given = (item.prompts, (first, second), contrasts)
    return Item(item.id, name, item.group, fold, item.hand, *given)


def _single(pair: Pair, name: str, fold: int, said: set[Message]) -> Item:
    others = _replaced(pair.prompt, -1, said - {pair.prompt[-1]})
    sides = (pair.chosen, pair.rejected)
    return Item(pair.id, name, pair.group, fold, 1, (pair.prompt,), sides, others)


def with_others(item: Crossing, place: int, known: set[Message]) -> tuple[Prompt, ...]:
    """The first prompt with other messages of `known` at a place; none of the item's own."""
    return _replaced(item.prompts[0], place, known - {prompt[place] for prompt in item.prompts})


def _replaced(prompt: Prompt, place: int, known: set[Message]) -> tuple[Prompt, ...]:
    at = place % len(prompt)
    return tuple((*prompt[:at], one, *prompt[at + 1 :]) for one in sorted(known, key=_content))


def hidden_prompts(item: Crossing) -> tuple[Prompt, ...]:
    """The prompts without what was said before the last turn."""
    return tuple(dict.fromkeys(map(hidden, item.prompts)))


def _content(message: Message) -> str:
    return message.content


def hidden(prompt: Prompt) -> Prompt:
    """A prompt of which only the last turn can be read."""
    before = [one if one.role == "assistant" else Message(one.role, HIDDEN) for one in prompt[:-1]]
    return (*before, prompt[-1])


def contrasts_of(item: Item, number: int) -> list[Prompt]:
    """So many of them, the same for an item each time; fewer where there are not so many."""
    seed = int.from_bytes(hashlib.sha256(item.id.encode()).digest()[:8])
    chosen = np.random.default_rng(seed).permutation(len(item.contrasts))[:number]
    return [item.contrasts[at] for at in chosen]


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


def in_folds(items: Iterable[Item], folds: set[int]) -> list[Item]:
    """Those of some folds."""
    return [one for one in items if one.fold in folds]


def described(items: Sequence[Item]) -> dict[str, int]:
    """How many items of each set."""
    return {
        name: sum(one.set == name for one in items) for name in sorted({one.set for one in items})
    }

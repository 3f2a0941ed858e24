"""Crossed items: two prompts that differ in one thing, two replies, each right under one of them.

Every reply is chosen as often as it is rejected, so a ranker that reads replies alone is right
exactly half of the time, whatever its vocabulary. An accuracy on such pairs is about the condition;
one on other pairs may be about the writer's hand. The design and the sets are ours.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar, cast

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.hed import HedRecord, parse_message
from hen_jax.data.preferences import Pair
from hen_jax.data.rows import Row
from hen_jax.data.steered import SteeredRecord
from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.empathy.labels import FINER_EMOTIONS, LANGUAGES, ROLE_WORDS, Language
from hen_jax.text.conversation import Conversation, Message
from hen_jax.text.prompts import condition_message, hed_messages, wish_message

_Item = TypeVar("_Item")

CROSSINGS: tuple[str, ...] = ("level", "emotion", "role", "fact")
"""What the two conditions of a shipped item differ in."""

SECOND_HAND = 101
"""Items from this number on are of another writer: train on one hand, test on the other, too."""


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Two prompts and two replies: reply `i` is right at prompt `i` and wrong at the other."""

    id: str
    kind: str  # what the prompts differ in
    group: str  # what splits keep whole
    prompts: tuple[tuple[Message, ...], tuple[Message, ...]]
    replies: tuple[str, str]
    language: Language = "en"

    @property
    def hand(self) -> int:
        """1 or 2: which of the two writers of the shipped items, by the number in the id."""
        number = self.id.rpartition("-")[2]
        return 2 if number.isdigit() and int(number) >= SECOND_HAND else 1


def parse_crossed(row: Row, contexts: Collection[str] = CONTEXTS) -> Crossing:
    """One JSON object as a crossing, in one of `contexts`.

    Raises:
      InputError: `field: what; allowed: ...`; also for two equal replies or conditions.
    """
    fields.known_keys(
        row,
        required=("id", "crossing", "lang", "context", "history", "user", "conditions", "replies"),
    )
    kind = fields.label_field(row, "crossing", CROSSINGS)
    language = cast(Language, fields.label_field(row, "lang", LANGUAGES))
    fields.label_field(row, "context", contexts)
    name, user = fields.text_field(row, "id"), fields.text_field(row, "user")
    histories = _two(row, "history", _history)
    systems = _two(row, "conditions", lambda item, key: _condition(item, key, kind, language))
    replies = _two(row, "replies", lambda item, key: fields.text_field({key: item}, key))
    if replies[0] == replies[1]:
        raise InputError("replies: both are the same; such an item says nothing")
    first, second = (
        (*system, *history, Message("user", user))
        for system, history in zip(systems, histories, strict=True)
    )
    if first == second:
        raise InputError("conditions: both give the same prompt; they must differ in one thing")
    return Crossing(name, kind, name, (first, second), replies, language)


def crossed_pairs(crossing: Crossing) -> list[Pair]:
    """Both directions: at each prompt its own reply over the other's."""
    return [
        Pair(
            id=f"{crossing.id}/{own + 1}",
            group=crossing.group,
            prompt=crossing.prompts[own],
            chosen=(Message("assistant", crossing.replies[own]),),
            rejected=(Message("assistant", crossing.replies[1 - own]),),
            kind=crossing.kind,
        )
        for own in (0, 1)
    ]


def crossed_conversation(crossing: Crossing) -> Conversation:
    """The first prompt with its reply."""
    return Conversation((*crossing.prompts[0], Message("assistant", crossing.replies[0])))


def role_crossings(records: Iterable[HedRecord]) -> list[Crossing]:
    """The two roles that a statement's SRER and SRPER records reply in, the rest being equal."""
    return _condition_crossings(records, "role", ("SRER", "SRPER"))


def personality_crossings(records: Iterable[HedRecord]) -> list[Crossing]:
    """The two personalities of a statement's SPER and SRPER records, the rest being equal."""
    return _condition_crossings(records, "personality", ("SPER", "SRPER"))


def statement_crossings(records: Iterable[HedRecord]) -> list[Crossing]:
    """Two statements of one task, emotion and language, with the replies exchanged.

    Each record is used once. Within an emotion the nearest are matched: the same role first, then
    the smallest difference in the length of the replies. The group names both statements; a split
    must use `within` so that neither is on both sides.
    """
    pools: dict[tuple[str, str, str], list[HedRecord]] = {}
    for record in records:
        pools.setdefault((record.task, record.emotion, record.language), []).append(record)
    found = []
    for pool in pools.values():
        left = sorted(pool, key=lambda one: (one.role or "", len(one.response), one.id))
        while len(left) > 1:
            one = left.pop(0)
            other = min(left, key=lambda two: _distance(one, two))
            left.remove(other)
            prompts = _prompt(one), _prompt(other)
            if one.response != other.response and prompts[0] != prompts[1]:
                found.append(_crossing("statement", (one, other), prompts))
    return found


def turn_crossings(records: Iterable[SteeredRecord]) -> list[Crossing]:
    """Two neighbouring turns of a steered conversation with the chosen replies exchanged."""
    found = []
    for record in records:
        for turn in range(len(record.turns) - 1):
            replies = record.turns[turn].chosen, record.turns[turn + 1].chosen
            if replies[0] == replies[1]:
                continue
            prompts = _up_to(record, turn), _up_to(record, turn + 1)
            found.append(Crossing(f"{record.id}/{turn}", "turn", record.group, prompts, replies))
    return found


BUILT: dict[str, tuple[str, Callable[[Iterable[Any]], list[Crossing]]]] = {
    "role": ("hed", role_crossings),
    "personality": ("hed", personality_crossings),
    "statement": ("hed", statement_crossings),
    "turn": ("steered", turn_crossings),
}
"""Crossings that are built: name -> schema of the records, and how."""


def is_crossed(kind: str) -> bool:
    """Whether pairs of that kind are chosen as often as rejected."""
    return kind in CROSSINGS or kind in BUILT


def require_crossed(pairs: Sequence[Pair]) -> None:
    """Refuses pairs in which some reply is not chosen as often as it is rejected.

    Raises:
      InputError: names the first such reply's pair.
    """
    balance = Counter(pair.chosen for pair in pairs)
    balance.subtract(pair.rejected for pair in pairs)
    for pair in pairs:
        for reply in (pair.chosen, pair.rejected):
            if balance[reply]:
                raise InputError(
                    f"record {pair.id}: its reply {reply[-1].content[:40]!r} is chosen "
                    f"{balance[reply]:+d} times more often than rejected; give both directions"
                )


def within(crossings: Iterable[Crossing], part: set[str], separator: str = "+") -> list[Crossing]:
    """The crossings all of whose groups are in `part`: `a+b` needs both `a` and `b`."""
    return [one for one in crossings if set(one.group.split(separator)) <= part]


def _condition_crossings(
    records: Iterable[HedRecord], kind: str, tasks: tuple[str, str]
) -> list[Crossing]:
    by_task: dict[tuple[str, str, str], HedRecord] = {
        (record.statement_id, record.language, record.task): record for record in records
    }
    found = []
    for (statement, language, task), first in by_task.items():
        second = by_task.get((statement, language, tasks[1]))
        if task != tasks[0] or second is None:
            continue
        prompts = _prompt(first, kind), _prompt(second, kind)
        if prompts[0] != prompts[1] and first.response != second.response:
            found.append(_crossing(kind, (first, second), prompts))
    return found


def _crossing(
    kind: str,
    records: tuple[HedRecord, HedRecord],
    prompts: tuple[tuple[Message, ...], tuple[Message, ...]],
) -> Crossing:
    first, second = records
    groups = sorted({first.statement_id, second.statement_id})
    return Crossing(
        id=f"{kind}-{first.id}-{second.id}",
        kind=kind,
        group="+".join(groups),
        prompts=prompts,
        replies=(first.response, second.response),
        language=first.language,
    )


def _prompt(record: HedRecord, only: str | None = None) -> tuple[Message, ...]:
    """The record's prompt, or one that gives no condition but the emotion and `only`."""
    return hed_messages(
        record.statement,
        emotion=record.emotion,
        role=record.role if only in (None, "role") else None,
        personality=record.personality if only in (None, "personality") else None,
        language=record.language,
        history=record.history,
    )


def _distance(one: HedRecord, other: HedRecord) -> tuple[bool, int, str]:
    return one.role != other.role, abs(len(one.response) - len(other.response)), other.id


def _up_to(record: SteeredRecord, turn: int) -> tuple[Message, ...]:
    said = []
    for earlier in record.turns[:turn]:
        said += [Message("user", earlier.user), Message("assistant", earlier.chosen)]
    return (*said, Message("user", record.turns[turn].user))


def _two(row: Row, key: str, parse: Callable[[object, str], _Item]) -> tuple[_Item, _Item]:
    value = row.get(key)
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{key}: {type(value).__name__}; allowed: a list of two")
    return parse(value[0], f"{key}[0]"), parse(value[1], f"{key}[1]")


def _history(items: object, key: str) -> tuple[Message, ...]:
    return fields.items_field({key: items}, key, parse_message)


def _condition(item: object, key: str, kind: str, language: Language) -> tuple[Message, ...]:
    def parse(given: Row) -> tuple[Message, ...]:
        needed = {"level": ("desired_level", "wish"), "fact": ()}.get(kind, (kind,))
        fields.known_keys(given, required=needed)
        if kind == "level":
            level = fields.number_field(given, "desired_level", 1, 3)
            return (wish_message(level, fields.text_field(given, "wish"), language),)
        if kind == "fact":
            return ()
        labels = {"emotion": FINER_EMOTIONS, "role": ROLE_WORDS}[kind]
        return (condition_message({kind: fields.label_field(given, kind, labels)}, language),)

    return fields.item_field({key: item}, key, parse)

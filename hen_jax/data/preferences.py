"""Pairs, labels and ratings: what people or judges preferred, in the columns TRL reads."""

import dataclasses
import re

from hen_jax.core.errors import InputError
from hen_jax.data import fields, outside
from hen_jax.data.conversations import (
    COLUMNS,
    completed,
    conversation_of,
    earlier_turns,
    group_of,
    instruction_of,
    messages_field,
    turns,
    with_opening,
)
from hen_jax.data.hed import HedRecord, hed_prompt
from hen_jax.data.rows import Row
from hen_jax.data.steered import SteeredRecord, steered_conversation
from hen_jax.empathy.scales import PERCEIVED, Scale
from hen_jax.text.conversation import Conversation, Message


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two ways to go on from one prompt, the better first.

    Each may be several turns, the user's among them; both begin after the prompt. `share` of the
    people asked preferred the first, `tie` of them neither, the rest the second.
    """

    id: str
    group: str
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    kind: str = ""  # why the rejected one is worse, where the data says so
    share: float = 1.0  # in [0, 1]; with half of `tie` at least one half
    tie: float = 0.0  # in [0, 1 - share]
    margin: float = 0.0  # by how much the first should lead, in units of the sigmoid's argument
    turn_weights: tuple[float, ...] = ()  # of the assistant's turns after the prompt; (): all 1

    @property
    def wins(self) -> float:
        """The first's share of wins, a tie being half a win for each: from 0.5 to 1."""
        return self.share + self.tie / 2

    def conversations(self) -> tuple[Conversation, Conversation]:
        """The prompt with each continuation."""
        return Conversation(self.prompt + self.chosen), Conversation(self.prompt + self.rejected)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A conversation marked good or bad (TRL's unpaired preference)."""

    id: str
    group: str
    conversation: Conversation
    label: bool


@dataclasses.dataclass(frozen=True)
class Rated:
    """A conversation with a rating, brought to [0, 1]."""

    id: str
    group: str
    conversation: Conversation
    rating: float


def parse_pair(row: Row) -> Pair:
    """One row as a pair; without `prompt`, what both continuations begin with is the prompt.

    Two texts without a prompt must mark their turns with `Human:` and `Assistant:`, each on a
    line of its own after a blank one, as the HH-RLHF files do. Where most people preferred
    `rejected`, the two are exchanged: the better one is first, and `margin` is its lead.

    Raises:
      InputError: `field: what; allowed: ...`; also for two equal continuations, or two that
        share no prompt.
    """
    outside.refuse(row, outside.IN_PAIRS)
    chosen, rejected = (_continuation(row, key) for key in ("chosen", "rejected"))
    given, shared = _prompt(row), _shared(chosen, rejected)
    # A prompt may be given and stand at the head of both sides as well; it was said once.
    repeated = given and chosen[:shared][-len(given) :] == given
    if given is None or repeated:
        given, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    prompt = with_opening(row, given, "prompt") if given else ()
    if not prompt:
        raise InputError("prompt: missing, and chosen and rejected do not begin alike; add one")
    if chosen == rejected:
        raise InputError("rejected: the same as chosen; such a pair says nothing")
    for key, said in {"chosen": chosen, "rejected": rejected}.items():
        if all(message.role != "assistant" for message in said):
            raise InputError(f"{key}: no assistant turn after the prompt; nothing to prefer")
    share, tie, margin = _judged(row)
    if share + tie / 2 < 0.5:
        chosen, rejected, share = rejected, chosen, 1 - tie - share
    return Pair(
        id=fields.name_field(row, "id"),
        group=group_of(row, prompt),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        share=share,
        tie=tie,
        margin=margin,
        turn_weights=_turn_weights(row, max(map(_replied, (chosen, rejected)))),
    )


def _turn_weights(row: Row, turns: int) -> tuple[float, ...]:
    """`turn_weights`: what each assistant turn counts for when a policy is trained."""
    given = row.get("turn_weights")
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) != turns:
        allowed = f"a list of {turns}, one per reply"
        raise InputError(f"turn_weights: {fields.shown(given)}; allowed: {allowed}")
    keyed = [{"turn_weights": weight} for weight in given]
    return tuple(fields.number_field(one, "turn_weights", 0, 1e6) for one in keyed)


def _replied(turns: tuple[Message, ...]) -> int:
    return sum(message.role == "assistant" for message in turns)


def parse_labelled(row: Row) -> Labelled:
    """One row as a labelled conversation; `label` (or `kto_tag`) is true, false, 1 or 0.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    key = "kto_tag" if "kto_tag" in row and "label" not in row else "label"
    label = fields.truth_field(row, key)
    messages = _messages({name: value for name, value in row.items() if name != key})
    group = group_of(row, messages)
    return Labelled(fields.name_field(row, "id"), group, Conversation(messages), label)


def parse_rated(row: Row, scale: Scale = PERCEIVED) -> Rated:
    """One row as a rated conversation; `rating` is on `scale`, 1 to 5 unless said otherwise.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    rating = scale.to_unit(fields.number_field(row, "rating", scale.low, scale.high))
    messages = _messages(row)
    group = group_of(row, messages)
    return Rated(fields.name_field(row, "id"), group, Conversation(messages), rating)


def hed_pairs(record: HedRecord) -> list[Pair]:
    """The record's reply against each of its rejected ones."""
    prompt, chosen = hed_prompt(record), (Message("assistant", record.response),)
    return [
        Pair(
            id=f"{record.id}/{index}-{rejected.kind}",
            group=record.statement_id,
            prompt=prompt,
            chosen=chosen,
            rejected=(Message("assistant", rejected.text),),
            kind=rejected.kind,
        )
        for index, rejected in enumerate(record.rejected)
    ]


def steered_pair(record: SteeredRecord) -> Pair:
    """The two branches; the prompt is the user's first turn, as the replies differ from there."""
    branches = [steered_conversation(record, branch).messages for branch in ("chosen", "rejected")]
    return Pair(
        id=record.id,
        group=record.group,
        prompt=branches[0][:1],
        chosen=branches[0][1:],
        rejected=branches[1][1:],
        kind=record.fault or "",
    )


def _messages(row: Row) -> tuple[Message, ...]:
    if any(column in row for column in COLUMNS):
        return conversation_of(row)
    if "instruction" in row and "prompt" not in row:
        outside.refuse(row, outside.IN_ROWS)
        reply = Message("assistant", fields.text_field(row, "output"))
        return (*earlier_turns(row), instruction_of(row), reply)
    return completed(row)


_MOST_LEAD = 1000.0
"""A margin that no score reaches: beyond it the column holds something else."""


def _judged(row: Row) -> tuple[float, float, float]:
    """The shares of people who preferred `chosen` and neither, and the margin; blanks say nothing.

    Raises:
      InputError: shares that are no shares or sum to more than 1, or a margin below 0.
    """
    given = {key for key in ("share", "tie", "margin") if outside.says(row.get(key))}
    tie = fields.number_field(row, "tie", 0, 1) if "tie" in given else 0.0
    share = fields.number_field(row, "share", 0, 1) if "share" in given else 1.0 - tie
    if share + tie > 1 + 1e-6:  # shares such as 1/3 and 2/3 come rounded
        raise InputError(
            f"share: {share:g} and tie: {tie:g} are more than everybody; allowed: a sum of up to 1"
        )
    margin = fields.number_field(row, "margin", 0, _MOST_LEAD) if "margin" in given else 0.0
    return min(share, 1.0 - tie), tie, margin


def _prompt(row: Row) -> tuple[Message, ...] | None:
    """What a row says was asked: `prompt`, turns, or an `instruction`; None where it does not."""
    if "prompt" in row:
        return turns(row, "prompt", "user")
    for column in COLUMNS:
        if column in row:
            said = messages_field(row, column)
            # Some sets keep the better conversation as `messages` beside its two halves.
            return said if said[-1].role == "user" else None
    return (instruction_of(row),) if "instruction" in row else None


_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def _continuation(row: Row, key: str) -> tuple[Message, ...]:
    asked = {"prompt", "instruction", *COLUMNS} & row.keys()
    if asked or not isinstance(row.get(key), str):
        return turns(row, key, "assistant")
    parts = _MARK.split(fields.text_field(row, key))
    if len(parts) < 3 or parts[0].strip():
        raise InputError(
            f"{key}: a text without prompt; add a prompt column, or begin its turns with Human: "
            "and Assistant:"
        )
    speakers, said = parts[1::2], parts[2::2]
    return tuple(
        Message("user" if speaker == "Human" else "assistant", text.strip())
        for speaker, text in zip(speakers, said, strict=True)
        if text.strip()
    )


def _shared(first: tuple[Message, ...], second: tuple[Message, ...]) -> int:
    """How many messages both begin with, up to the last that leaves the assistant the word."""
    alike = 0
    while alike < min(len(first), len(second)) and first[alike] == second[alike]:
        alike += 1
    while alike and first[alike - 1].role == "assistant":
        alike -= 1
    return alike

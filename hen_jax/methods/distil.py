"""Distilling empathy: replies improved by prompts, pairs made from ratings.

After Xie et al. (SIGDIAL 2025, arXiv 2507.08151): a large model improves replies along cognitive,
affective and compassionate empathy; a small one learns them by SFT and then DPO. The wording is
ours. Their published selection code reads `A | B & C` as Python binds it, which lets every human
reply rated 2 into the pairs; here the condition is the one that was meant.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.records import parse_records
from hen_jax.data.rows import Row
from hen_jax.methods.play import Messages, Method, Outcome, Steps, ask
from hen_jax.text.conversation import Message

SOURCES = ("human", "chatgpt", "llama", "gemini", "mixtral")
"""Who wrote the replies of the rated file, a person first."""

GOOD = 3
"""The best rating: 1 bad, 2 okay, 3 good."""

Family = Literal["naive", "all", "weakest", "cognitive", "affective", "compassionate", "sequence"]

_DIMENSIONS: Mapping[str, str] = {
    "cognitive": "understanding how it looks from where the person stands",
    "affective": "feeling with the person, and letting it be felt",
    "compassionate": "wanting to ease it, and offering something that does",
}
"""The three kinds of empathy, in words of ours."""

_LIMITS = (
    " Keep its meaning, intention and emotion. Use about 28 words and at most 97. Write only the "
    "new reply."
)


def improvement_texts(family: Family) -> tuple[str, ...]:
    """The wishes of a family of prompts, one after another."""
    listed = "; ".join(f"{name} ({what})" for name, what in _DIMENSIONS.items())
    one = "Improve the reply in its {name} empathy, {what}." + _LIMITS
    texts: dict[str, tuple[str, ...]] = {
        "naive": ("Improve the reply so that it is more empathetic." + _LIMITS,),
        "all": (f"Improve the reply in all three kinds of empathy: {listed}.{_LIMITS}",),
        "weakest": (
            f"Of these kinds of empathy, {listed}, find the one that the reply lacks most, and "
            f"improve that one.{_LIMITS}",
        ),
        "sequence": tuple(one.format(name=name, what=what) for name, what in _DIMENSIONS.items()),
        **{name: (one.format(name=name, what=what),) for name, what in _DIMENSIONS.items()},
    }
    return texts[family]


def improvement_call(conversation: Messages, reply: str, wish: str) -> Messages:
    """A conversation whose last reply is to be improved."""
    return (*conversation, Message("assistant", reply), Message("user", wish))


def improved(family: Family, draft: str | None = None) -> Method:
    """The method `improve_FAMILY`: a draft of the model's own, or a given one, made better."""
    wishes = improvement_texts(family)

    def steps(conversation: Messages) -> Steps:
        text = (yield from ask(conversation)) if draft is None else draft
        drafts = [text]
        for wish in wishes:
            text = yield from ask(improvement_call(conversation, text, wish))
            drafts.append(text)
        if not text:
            return Outcome(drafts[0], {"drafts": drafts}, "the improved reply is empty")
        return Outcome(text, {"drafts": drafts[:-1]})

    return steps


class RatedReplies(NamedTuple):
    """A prompt with the replies of several writers, each rated 1 to 3."""

    id: str
    prompt: str
    replies: Mapping[str, str]
    ratings: Mapping[str, int]

    @property
    def held_out(self) -> bool:
        """Whether the row is of the test part: fewer than two of its replies are good."""
        return sum(rating == GOOD for rating in self.ratings.values()) < 2


def read_rated(path: Path) -> list[RatedReplies]:
    """The rows of a rated file of their columns: `dialog_id`, `speaker_uttr`, and of each writer
    `response_human` with `rating_human`, `response_NAME_empathy` with `rating_NAME_empathy`.

    Raises:
      InputError: a bad row (`file:line: field: what`).
    """
    return parse_records(path, parse_rated_reply, lambda one: one.id, number=True).whole(path)


def parse_rated_reply(row: Row) -> RatedReplies:
    """One row of a rated file.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    ratings, replies = {}, {}
    for name in SOURCES:
        suffix = name if name == "human" else f"{name}_empathy"
        value = fields.number_field(row, f"rating_{suffix}", 1, GOOD)
        if not value.is_integer():
            raise InputError(f"rating_{suffix}: {value:g}; allowed: 1, 2, 3")
        ratings[name] = int(value)
        replies[name] = fields.text_field(row, f"response_{suffix}")
    name = fields.name_field(row, "dialog_id" if "dialog_id" in row else "id")
    return RatedReplies(name, fields.text_field(row, "speaker_uttr"), replies, ratings)


def pair_rows(found: Sequence[RatedReplies], chosen_by: str) -> list[dict[str, Any]]:
    """Rows of the schema `preference`: a good reply of that writer over a human one rated lower.

    The held-out rows give none, nor do two equal replies.
    """
    rows = []
    for one in found:
        better = one.ratings[chosen_by] == GOOD and one.ratings["human"] < GOOD
        if one.held_out or chosen_by == "human" or not better:
            continue
        if one.replies[chosen_by].strip() == one.replies["human"].strip():
            continue
        rows.append(
            {
                "id": f"{one.id}/{chosen_by}",
                "group": one.id,
                "prompt": one.prompt,
                "chosen": one.replies[chosen_by],
                "rejected": one.replies["human"],
            }
        )
    return rows


def sft_rows(found: Sequence[RatedReplies], chosen_by: str) -> list[dict[str, Any]]:
    """Rows of the schema `completion`: the replies of that writer where they and the human ones are
    good, the held-out rows aside; so none of them is in `pair_rows`."""
    return [
        {
            "id": f"{one.id}/{chosen_by}",
            "group": one.id,
            "prompt": one.prompt,
            "completion": one.replies[chosen_by],
        }
        for one in found
        if not one.held_out and one.ratings[chosen_by] == one.ratings["human"] == GOOD
    ]

"""ESConv (Liu et al., ACL 2021): emotional support conversations with a strategy per reply.

Reads `ESConv.json` and `FailedESConv.json` as the authors' repository has them, and the splits that
they put on the Hugging Face hub. The data (CC BY-NC 4.0) does not come with hen_jax.
"""

import dataclasses

from hen_jax.core.errors import InputError
from hen_jax.data import fields
from hen_jax.data.examples import Document
from hen_jax.data.rows import Row
from hen_jax.text.conversation import Conversation, Message, Role

STRATEGIES = (
    "Question",
    "Restatement or Paraphrasing",
    "Reflection of feelings",
    "Self-disclosure",
    "Affirmation and Reassurance",
    "Providing Suggestions",
    "Information",
    "Others",
)

OTHER_NAMES = {
    "Questions": "Question",
    "Other": "Others",
    "Restatement": "Restatement or Paraphrasing",
    "Approval and Reassurance": "Affirmation and Reassurance",
    "Direct Guidance": "Providing Suggestions",
}
"""Names of strategies in the file of failed conversations, and what the main file calls them."""

ESCONV_SPEAKERS: dict[str, Role] = {
    "seeker": "user",
    "usr": "user",
    "speaker": "user",
    "supporter": "assistant",
    "sys": "assistant",
    "listener": "assistant",
}
"""The main file, the hub's splits and the file of failed conversations name the two differently."""


@dataclasses.dataclass(frozen=True)
class SupportConversation:
    """One conversation between someone who seeks support and someone who gives it."""

    id: str
    emotion: str
    problem: str
    situation: str
    conversation: Conversation
    strategies: tuple[str | None, ...]  # one per message; None where none is given

    def document(self) -> Document:
        """The conversation, grouped by its situation."""
        return Document(self.id, self.situation, self.conversation)


def parse_esconv(row: Row) -> SupportConversation:
    """One JSON object as a record; `id` is its own or its place in the file.

    Raises:
      InputError: `field: what; allowed: ...`.
    """
    said = fields.items_field(row, "dialog", _parse_turn)
    messages = tuple(message for message, _ in said)
    if all(message.role != "assistant" for message in messages):
        raise InputError("dialog: no turn of the supporter; nothing of this record would train")
    return SupportConversation(
        id=fields.name_field(row, "id"),
        emotion=fields.text_field(row, "emotion_type"),
        problem=fields.text_field(row, "problem_type"),
        situation=fields.text_field(row, "situation"),
        conversation=Conversation(messages),
        strategies=tuple(strategy for _, strategy in said),
    )


def _parse_turn(row: Row) -> tuple[Message, str | None]:
    """A turn: `content` and `annotation.strategy`, or on the hub `text` and `strategy`."""
    role = ESCONV_SPEAKERS[fields.label_field(row, "speaker", ESCONV_SPEAKERS)]
    annotation = row.get("annotation") or {}
    if not isinstance(annotation, dict):
        raise InputError("annotation: not an object; allowed: a JSON object")
    annotation = {"strategy": row.get("strategy"), **annotation}
    strategy = None
    if annotation["strategy"] is not None:
        name = annotation["strategy"]
        known = OTHER_NAMES.get(name, name) if isinstance(name, str) else name
        strategy = fields.label_field({"strategy": known}, "strategy", STRATEGIES)
    said = fields.text_field(row, "text" if "text" in row else "content")
    return Message(role, said.strip()), strategy

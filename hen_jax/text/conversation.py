"""A conversation: who said what, in order; and whoever answers one."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

from hen_jax.core.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]
_ROLES: tuple[Role, ...] = get_args(Role)


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of one speaker; a `tool` gives what it found, and never trains.

    `thought` is what the assistant thought before it spoke, apart from `content`; a format that has
    no place for thoughts refuses it. `trains` says whether a reply trains: None, as every reply
    does; False, it is only read.

    Raises:
      InputError: the role is unknown, another than the assistant thinks or trains, or the text is
        not Unicode (a lone surrogate, as a broken JSON escape or a wrongly decoded byte leaves).
    """

    role: Role
    content: str
    thought: str | None = None
    trains: bool | None = None

    def __post_init__(self):
        if self.role not in _ROLES:
            raise InputError(f"message role {self.role!r}; allowed: {', '.join(_ROLES)}")
        if self.role != "assistant" and (self.thought or self.trains):
            what = "thinks" if self.thought else "trains"
            raise InputError(f"a message of the {self.role} {what}; only the assistant's may")
        try:
            (self.content + (self.thought or "")).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"message holds {str(error.object)[error.start]!a}, which is no character; "
                "mend its encoding"
            ) from None


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Messages in the order they were said; the system message, if any, comes first.

    Two turns of the same speaker may follow each other: people do send two messages.

    Raises:
      InputError: no message at all, or a system message that is not the first.
    """

    messages: tuple[Message, ...]

    def __post_init__(self):
        if not self.messages:
            raise InputError("a conversation needs at least one message")
        if any(message.role == "system" for message in self.messages[1:]):
            raise InputError("a system message must be the first of its conversation")


def message_row(message: Message) -> dict[str, str | bool]:
    """A message as a JSON object of a `messages` column, which reads back as the same message."""
    row: dict[str, str | bool] = {"role": message.role, "content": message.content}
    if message.thought is not None:
        row["reasoning_content"] = message.thought
    if message.trains is not None:
        row["train"] = message.trains
    return row


class Reply(NamedTuple):
    """What a model answers, without its stop token; what is None the model did not say."""

    text: str
    tokens: int | None = None  # the stop token included
    stopped: bool = True  # False: cut off at the greatest length
    mean_log_prob: float | None = None  # per token, in nats, the model's own


class UnansweredError(InputError):
    """Some conversations of a call have no reply; what came is kept in `replies`.

    `replies` is as long as the call's conversations, with None where there is none.
    """

    def __init__(self, message: str, replies: Sequence[Reply | None]):
        super().__init__(message)
        self.replies = tuple(replies)


def asked_before(asked: Sequence[Sequence[Message]]) -> list[int]:
    """How often each conversation stands earlier in the list: `[a, b, a]` gives `[0, 0, 1]`."""
    seen: Counter[tuple[Message, ...]] = Counter()
    found = []
    for messages in map(tuple, asked):
        found.append(seen[messages])
        seen[messages] += 1
    return found


Chat = Callable[[Sequence[Sequence[Message]]], list[Reply]]
"""`chat(conversations)`: a reply to each conversation so far, in their order; a model of ours
(`hen_jax.sampling.speaker`), one behind an endpoint (`hen_jax.io.endpoint`), or recorded replies
(`hen_jax.text.replay`); `hen_jax.runs.chats` opens each. Raises `UnansweredError`."""

"""A conversation: who said what, in order."""

import dataclasses
from typing import Literal, get_args

from hen_jax.core.errors import InputError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of one speaker.

    Raises:
      InputError: the role is unknown, or the content is not Unicode text (a lone surrogate, as a
        broken JSON escape or a wrongly decoded byte leaves behind).
    """

    role: Role
    content: str

    def __post_init__(self):
        if self.role not in ROLES:
            raise InputError(f"message role {self.role!r}; allowed: {', '.join(ROLES)}")
        try:
            self.content.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"message holds {self.content[error.start]!a}, which is no character; "
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

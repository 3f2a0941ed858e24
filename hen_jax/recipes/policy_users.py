"""Who speaks between the turns of a policy: a simulated user."""

from collections.abc import Sequence
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.text.conversation import Chat, Message, Reply
from hen_jax.text.replay import replay

PERSONA = (
    "You are the person who asked for comfort. Stay in that role: answer what was just said to you "
    "in one or two short spoken sentences, in the same language."
)

REPLAY = "replay:"


def check_user(turns: int, user: str | None) -> None:
    """Raises `InputError` where several turns have no user, or one turn has one."""
    if turns > 1 and user is None:
        raise InputError(
            f"config.rollout.turns is {turns}; give config.user, who speaks between them"
        )
    if turns == 1 and user is not None:
        raise InputError("config.user speaks between turns; give config.rollout.turns=2 or more")


def open_user(line: str | None) -> Chat | None:
    """The user that a line names: `replay:FILE` holds what it says to each conversation.

    Raises:
      InputError: another line, or a file that holds no replies.
    """
    if line is None:
        return None
    if not line.startswith(REPLAY):
        raise InputError(f"config.user is {line!r}; give replay:FILE")
    return replay(Path(line.removeprefix(REPLAY)))


def as_user(chat: Chat, persona: str = PERSONA) -> Chat:
    """A chat that speaks the user's side: it sees every turn with the roles exchanged."""

    def speak(asked: Sequence[Sequence[Message]]) -> list[Reply]:
        return chat([(Message("system", persona), *_from_the_other_side(one)) for one in asked])

    return speak


def _from_the_other_side(messages: Sequence[Message]) -> list[Message]:
    exchanged = {"user": "assistant", "assistant": "user"}
    return [
        Message("user" if exchanged[one.role] == "user" else "assistant", one.content)
        for one in messages
        if one.role in exchanged
    ]

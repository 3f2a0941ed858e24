"""Who speaks between the turns of a policy: a simulated user."""

from collections.abc import Sequence

from hen_jax.core.errors import InputError
from hen_jax.runs.chats import Answering, open_chat
from hen_jax.text.conversation import Chat, Message, Reply

PERSONA = (
    "You are the person who asked for comfort. Stay in that role: answer what was just said to you "
    "in one or two short spoken sentences, in the same language."
)


def check_user(turns: int, user: str | None) -> None:
    """Raises `InputError` where several turns have no user, or one turn has one."""
    if turns > 1 and user is None:
        raise InputError(
            f"config.rollout.turns is {turns}; give config.user, who speaks between them"
        )
    if turns == 1 and user is not None:
        raise InputError("config.user speaks between turns; give config.rollout.turns=2 or more")


def open_user(line: str | None, max_new_tokens: int, seed: int) -> Chat | None:
    """The user that a line names (see `runs.chats`), who sees the conversation from their side.

    Raises:
      InputError: no such back-end, or it cannot be opened.
    """
    if line is None:
        return None
    return as_user(open_chat(line, Answering(max_new_tokens, temperature=1.0, seed=seed)))


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

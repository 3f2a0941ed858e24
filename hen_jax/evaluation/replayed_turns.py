"""What an arm says where the user's side of conversations is replayed, turn after turn.

Each arm goes on from its own replies, so that what it said early tells on what it says late.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hen_jax.text.conversation import Chat, Message, UnansweredError


class Script(NamedTuple):
    """The user's side of a conversation."""

    id: str
    group: str  # what intervals resample
    context: str  # of `empathy.clusters`, or a context of one's own
    desired: float  # level in [0, 1]
    users: tuple[str, ...]  # turn by turn
    chosen: tuple[str, ...] = ()  # the replies of the data, turn by turn


Said = dict[tuple[str, int], str]
"""By the id of a script and the turn, from 0: the reply."""

Opening = Callable[[Script], tuple[Message, ...]]
"""What stands before the first turn: a system message, or nothing."""


def replayed(
    chat: Chat,
    scripts: Sequence[Script],
    opening: Opening,
    known: Mapping[tuple[str, int], str],
    keep: Callable[[Said], None],
) -> Said:
    """Every reply to every script; `keep` is given those of each call as soon as they are there.

    A turn is asked of all scripts that have it in one call. `known` are replies of an earlier
    attempt.

    Raises:
      UnansweredError: as the chat; what came is kept.
    """
    said = dict(known)
    for turn in range(max((len(script.users) for script in scripts), default=0)):
        own = [one for one in scripts if turn < len(one.users) and (one.id, turn) not in said]
        asked = [(*opening(script), *so_far(script, turn, said)) for script in own]
        new, lost = _answered(chat, asked) if own else ([], None)
        pairs = zip(own, new, strict=True)
        found = {(script.id, turn): text for script, text in pairs if text is not None}
        keep(found)
        said |= found
        if lost is not None:
            raise lost
    return said


def _answered(
    chat: Chat, asked: Sequence[Sequence[Message]]
) -> tuple[list[str | None], UnansweredError | None]:
    try:
        return [reply.text for reply in chat(asked)], None
    except UnansweredError as error:
        return [None if one is None else one.text for one in error.replies], error


def as_written(scripts: Sequence[Script]) -> Said:
    """The replies of the data, as if an arm had said them."""
    return {
        (script.id, turn): text for script in scripts for turn, text in enumerate(script.chosen)
    }


def so_far(script: Script, turn: int, said: Mapping[tuple[str, int], str]) -> tuple[Message, ...]:
    """The conversation up to the user's `turn` and, where it is there, the reply to it.

    Without what stood before: measures see what was said, not what was asked for.
    """
    messages = []
    for at in range(turn + 1):
        messages.append(Message("user", script.users[at]))
        if at < turn or (script.id, at) in said:
            messages.append(Message("assistant", said[script.id, at]))
    return tuple(messages)

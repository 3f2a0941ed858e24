"""A conversation as the pieces of text that a format makes of it: what is said, and what trains."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.text.conversation import Message
from hen_jax.text.turns import ChatFormat, tool_turn


class Piece(NamedTuple):
    """A stretch of one conversation's text."""

    text: str
    said: bool  # by a person, not by the format: never holds a control token
    trains: bool
    opens: bool = False  # is the first of its message


def script(
    messages: Sequence[Message], chat_format: ChatFormat, *, prompt: bool = False
) -> list[Piece]:
    """The pieces of a conversation in their order; a prompt ends where the reply would begin.

    Raises:
      InputError: a thought or a tool's answer that the format has no place for, or two replies
        that it joins of which one trains.
    """
    turns = list(_arranged(messages, chat_format))
    pieces = [_written(chat_format.begin)]
    last_user = max((at for at, one in enumerate(turns) if one.role == "user"), default=None)
    asked = max((at for at, one in enumerate(turns) if _asks(one)), default=len(turns))
    held = None  # a system message that waits for the user turn it is written into
    for at, message in enumerate(turns):
        if message.role == "assistant":
            last = not prompt and at == len(turns) - 1
            pieces += _reply(message, chat_format, newest=at > asked, last=last)
        elif message.role == "tool":
            follows = at > 0 and turns[at - 1].role == "tool"
            followed = at + 1 < len(turns) and turns[at + 1].role == "tool"
            pieces += _tool(message, chat_format, follows=follows, followed=followed)
        elif message.role == "system" and chat_format.system_in != "turn":
            held = message.content
        else:
            here = chat_format.system_in != "last_user" or at == last_user
            pieces += _turn(message, chat_format, held if here else None)
            held = None if here else held
    if not prompt:
        return [*pieces, _written(chat_format.end)]
    opening = chat_format.assistant.before
    return [*pieces, _written(opening + NO_THOUGHT if chat_format.thinks else opening, opens=True)]


NO_THOUGHT = "<think>\n\n</think>\n\n"
"""What Qwen3's template writes before a reply that was not thought about."""


NO_PLACE = (
    "a reply has a thought (reasoning_content, thinking), and the chat format {} has no place for "
    "one; remove it, or train a model whose template writes thoughts"
)


NO_TOOL = (
    "a message of the tool, and the template of this chat format ({!r}) has no place for one; "
    "leave such conversations out, or train a model whose template writes what tools answer"
)


def _arranged(messages: Sequence[Message], chat_format: ChatFormat) -> Iterable[Message]:
    """The messages with the format's own system message, and taking turns where they must."""
    if chat_format.default_system is not None and messages[0].role != "system":
        messages = (Message("system", chat_format.default_system), *messages)
    return _alternating(messages) if chat_format.alternates else messages


def _alternating(messages: Sequence[Message]) -> Iterator[Message]:
    before = None
    for message in messages:
        if before is not None and before.role == message.role:
            before = _together(before, message)
            continue
        if message.role == "assistant" and (before is None or before.role == "system"):
            yield from () if before is None else (before,)
            before = Message("user", "")
        if before is not None:
            yield before
        before = message
    if before is not None:
        yield before


def _together(first: Message, second: Message) -> Message:
    if first.thought or second.thought:
        raise InputError(NO_PLACE.format("that joins replies"))
    if (first.trains is False) != (second.trains is False):
        raise InputError(
            "two replies follow each other of which one trains; this chat format joins them into "
            "one turn: let both train or neither, or put what was said between them"
        )
    return dataclasses.replace(first, content=f"{first.content}\n{second.content}")


def _turn(message: Message, chat_format: ChatFormat, system: str | None) -> Iterator[Piece]:
    """A turn of the system or the user, with a system message written into it."""
    turn = chat_format.system if message.role == "system" else chat_format.user
    said = message.content.strip() if turn.trim == "said" else message.content
    words = [Piece(said, said=True, trains=False)]
    if system is not None:
        around = chat_format.system
        head = [_written(around.before), Piece(system, True, False), _written(around.after)]
        words = [*head, *words]
    yield _written(turn.before, opens=True)
    yield from _stripped(words) if turn.trim == "turn" else words
    yield _written(turn.after)


def _tool(
    message: Message, chat_format: ChatFormat, *, follows: bool, followed: bool
) -> Iterator[Piece]:
    """A tool's answer; `follows`, `followed`: beside another one."""
    turn, said = tool_turn(chat_format), message.content
    if turn is None:
        raise InputError(NO_TOOL.format(chat_format.name))
    if turn.quoted:
        said = json.dumps(said, ensure_ascii=False)
    one_turn = turn.between is not None
    yield _written(turn.between or "" if follows and one_turn else turn.before, opens=True)
    yield Piece(said.strip() if turn.trim else said, said=True, trains=False)
    yield _written("" if followed and one_turn else turn.after)


def _asks(message: Message) -> bool:
    """Whether replies answer this message; Qwen3's template takes a tool's response for none."""
    said = message.content
    response = said.startswith("<tool_response>") and said.endswith("</tool_response>")
    return message.role == "user" and not response


def _reply(
    message: Message, chat_format: ChatFormat, *, newest: bool, last: bool
) -> Iterator[Piece]:
    """A reply; `newest`: nobody asked anything after it; `last`: nothing at all follows."""
    reply, trains, content = chat_format.assistant, message.trains is not False, message.content
    before, lead = reply.before, [_written(reply.lead, trains=trains)]
    if chat_format.thinks:
        thought, content = _thought(message)
        if newest and (last or thought):
            content = content.lstrip("\n")
            if thought:
                lead = _thinking(thought.strip("\n"), trains=trains)
            else:
                before += NO_THOUGHT
    elif message.thought:
        raise InputError(NO_PLACE.format(repr(chat_format.name)))
    yield _written(before, opens=True)
    yield from lead
    yield Piece(content.strip() if reply.trim else content, said=True, trains=trains)
    yield _written(reply.stop, trains=trains)
    yield _written("" if last and chat_format.open_end else reply.after)


def _thinking(thought: str, *, trains: bool) -> list[Piece]:
    return [
        _written("<think>\n", trains=trains),
        Piece(thought, said=True, trains=trains),
        _written("\n</think>\n\n", trains=trains),
    ]


def _thought(message: Message) -> tuple[str, str]:
    """The thought and the words of a reply, as Qwen3's template takes them apart.

    Thoughts are kept after the last question alone: the model is never shown an older one.
    """
    if message.thought is not None:
        return message.thought, message.content
    before, end, said = message.content.rpartition("</think>")
    if not end:
        return "", message.content
    thought = before.split("</think>")[0].rstrip("\n").split("<think>")[-1]
    return thought.lstrip("\n"), said.lstrip("\n")


def _stripped(pieces: list[Piece]) -> list[Piece]:
    """The pieces without white space at either end of the whole."""
    while pieces and not pieces[-1].text.strip():
        pieces = pieces[:-1]
    while pieces and not pieces[0].text.strip():
        pieces = pieces[1:]
    if pieces:
        pieces[-1] = pieces[-1]._replace(text=pieces[-1].text.rstrip())
        pieces[0] = pieces[0]._replace(text=pieces[0].text.lstrip())
    return pieces


@functools.lru_cache(maxsize=256)
def _written(text: str, *, trains: bool = False, opens: bool = False) -> Piece:
    """A piece that the format writes: there are few different ones."""
    return Piece(text, False, trains, opens)

"""A method: the calls it makes for a conversation, and what it then says; all methods in one batch.

A method is a generator function. It yields conversations that it wants replies to, one or several
at a time, is sent the replies, and returns an `Outcome`. It calls nobody itself: `play` gathers
what all of them want next and asks a `Chat` once for all. So many methods over many conversations
cost as many rounds as the deepest of them has steps, and each costs its own tokens.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from hen_jax.text.conversation import Chat, Message, Reply

Messages = tuple[Message, ...]


class Outcome(NamedTuple):
    """What a method says, with its reasoning apart: the trace is never a part of the reply."""

    reply: str
    trace: Mapping[str, Any] = {}  # as JSON can say it
    failure: str | None = None  # why the method fell back on something simpler than itself


Steps = Generator[Sequence[Messages], Sequence[Reply], Outcome]
"""Yields conversations, is sent a reply to each, returns the outcome."""

Method = Callable[[Messages], Steps]
"""`method(conversation)`: the conversation ends with what the user says."""


class Played(NamedTuple):
    """An outcome and what it cost."""

    outcome: Outcome
    calls: int
    rounds: int  # calls that had to wait for one another: the latency counts these
    tokens: int  # that were generated; of a back-end that does not say, the words of its replies
    read: int  # characters of all conversations that were sent
    seconds: float  # its share of each round by tokens; measure a method alone for its latency


class _Going(NamedTuple):
    """A play that waits for replies."""

    place: int
    steps: Steps
    wanted: Sequence[Messages]


def play(
    steps: Sequence[Steps], chat: Chat, *, clock: Callable[[], float] = time.perf_counter
) -> list[Played]:
    """Runs all to their ends, in their order, with one call of `chat` in each round."""
    costs = [Played(Outcome(""), 0, 0, 0, 0, 0.0) for _ in steps]
    going = _advance([(place, one, None) for place, one in enumerate(steps)], costs)
    while going:
        began = clock()
        replies = chat([messages for one in going for messages in one.wanted])
        seconds = clock() - began
        whole = max(1, sum(map(spent, replies)))
        given, at = [], 0
        for one in going:
            mine = replies[at : at + len(one.wanted)]
            at += len(one.wanted)
            costs[one.place] = _added(costs[one.place], one.wanted, mine, seconds / whole)
            given.append((one.place, one.steps, mine))
        going = _advance(given, costs)
    return costs


def spent(reply: Reply) -> int:
    """Tokens of a reply; its words where the back-end counts none."""
    return len(reply.text.split()) if reply.tokens is None else reply.tokens


def _added(
    cost: Played, wanted: Sequence[Messages], replies: Sequence[Reply], each: float
) -> Played:
    tokens = sum(map(spent, replies))
    return cost._replace(
        calls=cost.calls + len(replies),
        rounds=cost.rounds + 1,
        tokens=cost.tokens + tokens,
        read=cost.read + sum(len(one.content) for messages in wanted for one in messages),
        seconds=cost.seconds + tokens * each,
    )


def _advance(
    given: Sequence[tuple[int, Steps, Sequence[Reply] | None]], costs: list[Played]
) -> list[_Going]:
    """Each one step further; what ends leaves its outcome in `costs`."""
    going = []
    for place, steps, replies in given:
        try:
            wanted = next(steps) if replies is None else steps.send(replies)
        except StopIteration as end:
            costs[place] = costs[place]._replace(outcome=end.value)
        else:
            going.append(_Going(place, steps, tuple(wanted)))
    return going


_Found = TypeVar("_Found")


def ask(messages: Messages) -> Generator[Sequence[Messages], Sequence[Reply], str]:
    """One call, as a step of a method: `text = yield from ask(messages)`."""
    (reply,) = yield (messages,)
    return reply.text.strip()


def ask_parsed(
    messages: Messages, parse: Callable[[str], _Found | None], again: str, tries: int = 2
) -> Generator[Sequence[Messages], Sequence[Reply], tuple[_Found | None, str]]:
    """A call whose reply must be of a form; one that is not is told `again` and asked once more.

    Returns what was parsed, None where no try was of that form, and the last reply.
    """
    said, text = messages, ""
    for _ in range(tries):
        text = yield from ask(said)
        found = parse(text)
        if found is not None:
            return found, text
        said = (*messages, Message("assistant", text), Message("user", again))
    return None, text


def plainly(messages: Messages) -> Steps:
    """The method `base`: the conversation as it is."""
    text = yield from ask(messages)
    return Outcome(text)

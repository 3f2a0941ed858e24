"""Emotional knowledge tool calling: the model itself decides whether to ask a tool first.

After TOOL-ED (Cao et al., 2025, COLING, arXiv 2412.03096). The form of a call, the traces and the
rule of when knowledge is worth a call are ours: their repository could not be read.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.evaluation.reply_rules import words_of
from hen_jax.methods.play import Messages, Method, Outcome, Steps, ask
from hen_jax.methods.sections import with_system
from hen_jax.methods.tools import Call, CallResult, Tool, answered, call_text, parse_call
from hen_jax.text.conversation import Message, Role, message_row

MOST_CALLS = 2
"""Calls in one reply at most."""


class ToolLimits(NamedTuple):
    """What a play with tools may cost."""

    calls: int = MOST_CALLS
    timeout: float = 2.0  # seconds of one call
    role: Role = "tool"  # "user" for a model whose format has no place for a tool's answer


def tools_text(tools: Mapping[str, Tool]) -> str:
    """What a model is told of its tools."""
    lines = [
        "You may ask a tool before you reply, if what it knows would change it. To ask, answer",
        'with JSON only: {"tool": NAME, "arguments": {...}}. Else reply to the user. Tools:',
    ]
    for tool in tools.values():
        given = "; ".join(f"{key} ({what})" for key, what in tool.arguments.items())
        lines.append(f"- {tool.name}: {tool.about} Arguments: {given}")
    return "\n".join(lines)


def tooled(tools: Sequence[Tool], limits: ToolLimits = ToolLimits()) -> Method:
    """The method `tooled`. A failing tool, or a call that is none, ends in a plain reply.

    Raises:
      ValueError: no tool, or two of one name.
    """
    named = {tool.name: tool for tool in tools}
    if not tools or len(named) < len(tools):
        raise ValueError("give tools, each with a name of its own")

    def steps(conversation: Messages) -> Steps:
        said = with_system(conversation, tools_text(named))
        calls: list[dict[str, Any]] = []
        for _ in range(limits.calls):
            text = yield from ask(said)
            try:
                call = parse_call(text)
            except InputError as error:
                failed = CallResult(json.dumps({"error": str(error)}), "bad call")
                call = Call("", {})
            else:
                if call is None:
                    return Outcome(text, {"calls": calls})
                failed = None
            found = failed or answered(call, named, limits.timeout)
            calls.append({**call._asdict(), "answer": found.text, "failure": found.failure})
            if found.failure is not None:
                plain = yield from ask(conversation)
                return Outcome(plain, {"calls": calls}, f"tool call: {found.failure}")
            said = (*said, Message("assistant", text), Message(limits.role, found.text))
        text = yield from ask(said)
        if _is_call(text):
            plain = yield from ask(conversation)
            return Outcome(plain, {"calls": calls}, f"more than {limits.calls} tool calls")
        return Outcome(text, {"calls": calls})

    return steps


def _is_call(text: str) -> bool:
    try:
        return parse_call(text) is not None
    except InputError:
        return True


_Worth = Callable[[Messages, str, str], float]
"""`worth(conversation, knowledge, reply)`: how much the knowledge helps to say that reply."""


def overlap_gain(conversation: Messages, knowledge: str, reply: str) -> float:
    """The share of the reply's words that the knowledge has and the conversation has not.

    A stand-in that needs no model; of a model, take the gain in the reply's log-probability.
    """
    before = {word for one in conversation for word in words_of(one.content)}
    own = set(words_of(reply))
    return len((own & set(words_of(knowledge))) - before) / max(1, len(own))


def trace_row(
    name: str,
    dialogue: Messages,
    tools: Mapping[str, Tool],
    tries: Sequence[Call],
    worth: _Worth = overlap_gain,
    least: float = 0.1,
) -> dict[str, Any]:
    """One row of the schema `messages`: a dialogue that ends with a reply, as a trace with a tool.

    Of `tries` the call whose answer is worth most is written in, if it is worth `least`;
    else the reply stands alone, and the model learns not to call. Only the call and the reply
    train; `called` says which of both it is.

    Raises:
      InputError: the dialogue does not end with a reply.
    """
    *before, reply = dialogue
    if reply.role != "assistant" or not before:
        raise InputError(f"record {name}: ends with the {reply.role}; end it with a reply")
    found = [(call, answered(call, tools)) for call in tries]
    good = [
        (worth(tuple(before), answer.text, reply.content), at)
        for at, (_, answer) in enumerate(found)
        if answer.failure is None
    ]
    best, at = max(good, default=(0.0, 0), key=lambda one: (one[0], -one[1]))
    called = bool(good) and best >= least
    asked = (Message("assistant", call_text(found[at][0])), Message("tool", found[at][1].text))
    read_only = tuple(
        dataclasses.replace(one, trains=False) if one.role == "assistant" else one for one in before
    )
    head = with_system(read_only, tools_text(tools))
    messages = (*head, *(asked if called else ()), reply)
    return {
        "id": name,
        "called": called,
        "messages": list(map(message_row, messages)),
    }


class CallScores(NamedTuple):
    """How well a model decides to call."""

    call_rate: float  # of conversations
    precision: float  # of calls, those where one was due
    unnecessary: float  # calls among the conversations where none was due
    recall: float  # of the conversations where one was due
    failures: Mapping[str, int]


def call_scores(traces: Sequence[Mapping[str, Any]], due: Sequence[bool]) -> CallScores:
    """Scores of the traces of `tooled`, beside whether a call was due; NaN of nothing."""
    called = [bool(trace.get("calls")) for trace in traces]
    hits = sum(one and two for one, two in zip(called, due, strict=True))
    failures: dict[str, int] = {}
    for trace in traces:
        for call in trace.get("calls", ()):
            if call["failure"] is not None:
                failures[call["failure"]] = failures.get(call["failure"], 0) + 1
    return CallScores(
        _share(sum(called), len(called)),
        _share(hits, sum(called)),
        _share(sum(called) - hits, len(due) - sum(due)),
        _share(hits, sum(due)),
        failures,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")

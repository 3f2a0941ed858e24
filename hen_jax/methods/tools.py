"""Tools that a model may call for knowledge, and calls that cannot hang or crash a chat.

After TOOL-ED (Cao et al., 2025, arXiv 2412.03096), which wraps commonsense bases as tools that can
be exchanged. The files' forms and the limits are ours.
"""

import json
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data.rows import text_lines
from hen_jax.evaluation.reply_rules import words_of

RELATIONS: Mapping[str, str] = {
    "xIntent": "why the person does it",
    "xNeed": "what the person needs first",
    "xWant": "what the person wants next",
    "xEffect": "what happens to the person",
    "xReact": "how the person feels",
}
"""The relations of ATOMIC that empathetic dialogue uses."""

LONGEST_ANSWER = 5
"""Items of an answer at most."""


class Tool(NamedTuple):
    """Something that can be asked."""

    name: str
    about: str  # for the model
    arguments: Mapping[str, str]  # name -> what to give
    answer: Callable[[Mapping[str, str]], Mapping[str, Any]]


class Call(NamedTuple):
    """What a model asks of a tool."""

    name: str
    arguments: Mapping[str, str]


class CallResult(NamedTuple):
    """What came of a call; `text` is JSON for the model, also of a failure."""

    text: str
    failure: str | None = None  # "unknown tool", "bad arguments", "timeout", "error"


def parse_call(text: str) -> Call | None:
    """The call that a reply is: one JSON object with `tool` and `arguments` and nothing around it.

    Raises:
      InputError: it begins like one and is none: what a model is told to mend.
    """
    said = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not said.startswith("{"):
        return None
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        raise InputError("the call is no JSON object") from None
    if not isinstance(found, dict) or set(found) != {"tool", "arguments"}:
        raise InputError("a call has the keys tool and arguments")
    name, given = found["tool"], found["arguments"]
    texts = isinstance(given, dict) and all(isinstance(one, str) for one in given.values())
    if not isinstance(name, str) or not texts:
        raise InputError("tool is a name, and arguments an object of texts")
    return Call(name, given)


def call_text(call: Call) -> str:
    """A call as `parse_call` reads it."""
    return json.dumps({"tool": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)


def answered(call: Call, tools: Mapping[str, Tool], timeout: float = 2.0) -> CallResult:
    """Asks the tool, for `timeout` seconds at most; a failure is an answer that says so."""
    tool = tools.get(call.name)
    if tool is None:
        return _failed("unknown tool", f"there are {', '.join(tools)}")
    if set(call.arguments) != set(tool.arguments):
        return _failed("bad arguments", f"give {', '.join(tool.arguments)}")
    said: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            said.put((tool.answer(call.arguments), None))
        except Exception as error:  # a tool is anybody's code
            said.put((None, error))

    threading.Thread(target=work, daemon=True, name=f"tool {tool.name}").start()
    try:
        found, error = said.get(timeout=timeout)
    except queue.Empty:
        return _failed("timeout", f"no answer within {timeout:g} s")
    if error is not None:
        return _failed("error", f"{type(error).__name__}: {error}")
    return CallResult(json.dumps(found, ensure_ascii=False))


def knowledge_tool(path: Path, name: str = "commonsense") -> Tool:
    """A tool over a file of `event<TAB>relation<TAB>tail` lines, as ATOMIC's are.

    The event that shares the most words with the one asked for (by Jaccard) is answered; below a
    fifth there is none, and the answer is empty.

    Raises:
      InputError: no such file, or a line of another form (`file:line`).
    """
    known: dict[str, dict[str, list[str]]] = {}
    for number, line in _lines(path):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != 3 or not all(cells):
            raise InputError(f"{path}:{number}: no `event<TAB>relation<TAB>tail`")
        known.setdefault(cells[0], {}).setdefault(cells[1], []).append(cells[2])
    words = {event: frozenset(words_of(event)) for event in known}

    def answer(given: Mapping[str, str]) -> dict[str, list[str]]:
        near = _nearest(words, given["event"])
        found = known[near].get(given["relation"], []) if near is not None else []
        return {given["relation"]: found[:LONGEST_ANSWER]}

    relations = "; ".join(f"{key}: {text}" for key, text in RELATIONS.items())
    about = {"event": "what happened, in a few words", "relation": relations}
    return Tool(name, "What usually lies behind an event and follows from it.", about, answer)


def faq_tool(path: Path, name: str = "faq") -> Tool:
    """A tool over a file of `question<TAB>answer` lines, such as of psychoeducation.

    Raises:
      InputError: no such file, or a line of another form (`file:line`).
    """
    known: dict[str, str] = {}
    for number, line in _lines(path):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != 2 or not all(cells):
            raise InputError(f"{path}:{number}: no `question<TAB>answer`")
        known[cells[0]] = cells[1]
    words = {question: frozenset(words_of(question)) for question in known}

    def answer(given: Mapping[str, str]) -> dict[str, str]:
        near = _nearest(words, given["question"])
        return {"answer": known[near] if near is not None else ""}

    return Tool(
        name, "Short answers about feelings and coping.", {"question": "a question"}, answer
    )


def _nearest(words: Mapping[str, frozenset[str]], text: str) -> str | None:
    own = frozenset(words_of(text))
    shared = [(len(own & them) / max(1, len(own | them)), key) for key, them in words.items()]
    best, key = max(shared, default=(0.0, ""))
    return key if best >= 0.2 else None


def _failed(kind: str, why: str) -> CallResult:
    return CallResult(json.dumps({"error": f"{kind}: {why}"}, ensure_ascii=False), kind)


def _lines(path: Path):
    if not path.is_file():
        raise InputError(f"{path}: no such file; give one with a tab between its columns")
    return text_lines(path)

"""`hen chat`: a conversation in the terminal, with whoever is asked."""

import contextlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.outputs import output_files
from hen_jax.measures.safety.guard import Guard, open_guard
from hen_jax.runs.tellers import Teller, open_teller
from hen_jax.text.conversation import Message, Reply, message_row
from hen_jax.verbs.generate.generate import GenerateRequest, answering_of, require_settings

HELP = """\
/system TEXT   another system message from here on; without TEXT, none
/regenerate    another reply to what you said last
/reset         forget what was said
/save FILE     write the conversation, for `hen generate --messages FILE`
/help          these lines
/quit          leave; so does Ctrl-D. Ctrl-C stops a reply, which then was never asked for"""


class Talk(NamedTuple):
    """What was said so far."""

    system: str | None
    turns: tuple[Message, ...] = ()
    draws: int = 0  # replies that were asked for: each draws otherwise

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as a model reads it."""
        head = () if self.system is None else (Message("system", self.system),)
        return (*head, *self.turns)


def chat(request: GenerateRequest, *, guarded: bool = False, place: str | None = None) -> None:
    """Reads lines from standard input, and answers each, until they end.

    What cannot be answered is told in a line, and the conversation is as before. With `guarded`
    each reply passes a guard, whose resources are those of `place`.

    Raises:
      InputError: no such model, back-end or place, or a setting out of range.
    """
    require_settings(request)
    if place is not None and not guarded:
        raise InputError("--place goes with --guard")
    guard = open_guard(place) if guarded else None
    teller, talk = open_teller(request.line, answering_of(request)), Talk(request.system)
    print(f"{request.line}; /help says what there is, Ctrl-D leaves")
    with contextlib.suppress(ImportError):
        if sys.stdin.isatty():
            import readline  # noqa: F401  (from now on `input` edits and remembers lines)
    while (line := _read()) is not None:
        if line.strip() == "/quit":
            return
        try:
            talk = answer(line.strip(), talk, teller, request.seed, guard)
        except KeyboardInterrupt:
            print("\n[stopped]")
        except InputError as error:
            print(f"[{error}]")


def answer(line: str, talk: Talk, teller: Teller, seed: int, guard: Guard | None = None) -> Talk:
    """What a line makes of a conversation; prints what there is to say.

    Raises:
      InputError: an unknown command, or a reply that did not come.
    """
    command, _, rest = line.partition(" ")
    if not line.startswith("/"):
        return _reply(talk, Message("user", line), teller, seed, guard) if line else talk
    match command:
        case "/help":
            print(HELP)
        case "/system":
            return talk._replace(system=rest.strip() or None)
        case "/reset":
            return talk._replace(turns=())
        case "/regenerate":
            if not talk.turns:
                raise InputError("nothing was said yet")
            *before, asked, _ = talk.turns
            return _reply(talk._replace(turns=tuple(before)), asked, teller, seed, guard)
        case "/save":
            _save(talk, rest.strip())
        case _:
            raise InputError(f"{command} is no command; /help lists them")
    return talk


def _read() -> str | None:
    """The next line; None at the end of the input."""
    while True:
        try:
            return input("> ")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print("\n[Ctrl-D leaves]")


def _reply(talk: Talk, asked: Message, teller: Teller, seed: int, guard: Guard | None) -> Talk:
    """The conversation with what was asked and the reply to it.

    It is shown as it comes, and with a guard when that has seen the whole of it.
    """
    waiting = talk._replace(turns=(*talk.turns, asked), draws=talk.draws + 1)
    reply = _show(teller, waiting.messages, (seed + talk.draws) % 2**32, hidden=guard is not None)
    verdict = guard(waiting.messages, reply.text) if guard else None
    text = verdict.text if verdict else reply.text
    cut = "" if reply.stopped else " [cut off at --max-new-tokens]"
    print((text if verdict else "") + cut, flush=True)
    if verdict and verdict.reasons:
        print(f"[guard: {verdict.action}, {', '.join(verdict.reasons)}]")
    return waiting._replace(turns=(*waiting.turns, Message("assistant", text)))


def _show(teller: Teller, messages: tuple[Message, ...], seed: int, *, hidden: bool) -> Reply:
    """Prints a reply piece by piece, and returns it; a line that breaks off is ended."""
    begun = False
    # Closed in any case: a reply that is stopped must not go on being written.
    with contextlib.closing(teller(messages, seed)) as telling:
        try:
            while True:
                piece = next(telling)
                if not hidden:
                    begun = begun or bool(piece)
                    print(piece, end="", flush=True)
        except StopIteration as end:
            return end.value
        except InputError:
            print(end="\n" if begun else "")
            raise


def _save(talk: Talk, name: str) -> None:
    if not name or not talk.turns:
        raise InputError("nothing was said yet" if name else "/save FILE: where to?")
    path = Path(name)
    with output_files(path) as (staged,):
        rows = list(map(message_row, talk.messages))
        staged.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"[{len(rows)} messages in {path}]")

"""`hen generate --input FILE --out FILE`: a reply to each line, in order, resumed where it stopped.

A line of the output is `{"id", "sample", "by", "messages", "reply", "tokens", ...}`: the lines of a
replay (`hen generate --backend replay:FILE`). All up to `"reply"` follows from the input and the
settings, so a file that was begun is recognised by its text, and another's is never added to.
"""

import codecs
import dataclasses
import fcntl
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from hen_jax.core.checksums import text_sha256
from hen_jax.core.errors import InputError
from hen_jax.data.conversations import COLUMNS, conversation_of, turns, with_opening
from hen_jax.data.records import parse_records
from hen_jax.data.rows import Row
from hen_jax.runs.chats import Speaker, back_end, revision
from hen_jax.text.conversation import Message, Reply, UnansweredError, message_row
from hen_jax.verbs.generate.generate import (
    DELIVERY,
    GenerateRequest,
    open_speaker_of,
    require_settings,
    to_answer,
)

_CHUNK = 32
"""Replies that are asked for, and written, together."""


_NEUTRAL = {"model", "backend", "adapter", "json", "n", *DELIVERY}
"""Fields of a request that change no reply, or are told otherwise in `_made_by`."""


class _Asked(NamedTuple):
    """One reply that is wanted."""

    id: str
    sample: int  # which of the replies to one prompt
    messages: tuple[Message, ...]


class _Written(NamedTuple):
    """What was done."""

    replies: int  # in the file
    before: int  # of them, there already
    tokens: int
    seconds: float


def generate_file(request: GenerateRequest, source: Path, out: Path) -> _Written:
    """Writes `request.n` lines for each line of `source`, which has `prompt` or `messages`.

    What was done before a kill stays, and the same command goes on behind it. What is drawn for a
    reply depends on the seed and on where the call began that asked for it: a command that goes on
    at the next chunk draws what it would have drawn, and within one, as where an endpoint failed,
    other replies.

    Raises:
      InputError: a line that cannot be read, one that cannot be answered (what came before it is
        written), an `out` that holds other replies, or whatever the back-end says.
    """
    require_settings(request)
    if request.prompts or request.messages is not None or request.raw:
        raise InputError("--input takes the place of --prompt, --messages and --raw")
    wanted = [
        _Asked(one.id, sample, one.messages)
        for one in read_prompts(source, request.system)
        for sample in range(request.n)
    ]
    by, began = _made_by(request), time.perf_counter()
    with _opened(out) as file:
        before = _kept(file, wanted, by, out)
        tokens = 0 if before == len(wanted) else _write(file, request, wanted, before, by, out)
    found = _Written(len(wanted), before, tokens, time.perf_counter() - began)
    there = f", {before} of them there before" if before else ""
    print(f"{out}: {len(wanted)} replies{there}; {tokens} tokens in {found.seconds:.1f} s")
    return found


def _write(
    file: IO[str],
    request: GenerateRequest,
    wanted: Sequence[_Asked],
    before: int,
    by: str,
    out: Path,
) -> int:
    """Writes what is missing behind the first `before` replies; how many tokens that were."""
    speaker, began, tokens = open_speaker_of(request), time.perf_counter(), 0
    for start in range(before, len(wanted), _CHUNK):
        chunk = wanted[start : start + _CHUNK]
        for asked, reply in _answered(speaker, request.seed, start, chunk, out):
            file.write(_head(asked, by) + _tail(reply))
            tokens += reply.tokens or 0
        file.flush()
        os.fsync(file.fileno())
        rate = tokens / max(time.perf_counter() - began, 1e-9)
        _tell(start, start + len(chunk), len(wanted), rate)
    return tokens


def read_prompts(source: Path, system: str | None) -> list[_Asked]:
    """The conversations of a file, each of which waits for a reply.

    Raises:
      InputError: names the first line that is none, as `file:line:field: what`.
    """

    def parse(row: Row) -> _Asked:
        said = (
            conversation_of(row)
            if any(one in row for one in COLUMNS)
            else with_opening(row, turns(row, "prompt", "user"), "prompt")
        )
        return _Asked(str(row["id"]), 0, to_answer(said, system, "messages"))

    return parse_records(source, parse, lambda one: one.id, number=True).whole(source)


def _made_by(request: GenerateRequest) -> str:
    """A word for who answers, and how: another model or temperature has another one."""
    told = {
        field.name: str(vars(request)[field.name])
        for field in dataclasses.fields(request)
        if field.name not in _NEUTRAL
    }
    kind, where, model = back_end(request.line)
    of = model if kind == "endpoint" else revision(request.line, request.adapter)
    named = where if kind == "endpoint" else ""
    return text_sha256(json.dumps([kind, named, of, told], sort_keys=True))[:12]


def _head(asked: _Asked, by: str) -> str:
    """The beginning of a line: all that is known before its reply."""
    known = {
        "id": asked.id,
        "sample": asked.sample,
        "by": by,
        "messages": list(map(message_row, asked.messages)),
    }
    return json.dumps(known, ensure_ascii=False)[:-1] + ', "reply": '


def _tail(reply: Reply) -> str:
    rest = {key: value for key, value in reply._asdict().items() if key != "text"}
    text = json.dumps(reply.text, ensure_ascii=False)
    return f"{text}, {json.dumps(rest, ensure_ascii=False)[1:]}\n"


@contextmanager
def _opened(out: Path) -> Iterator[IO[str]]:
    """The file, to be read and added to, by one command at a time."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists() and not out.is_file():
        raise InputError(f"{out} is no file; give a name that is free")
    with out.open("a+", encoding="utf-8", newline="") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out} is being written by another command; wait for it") from None
        yield file


def _kept(file: IO[str], wanted: Sequence[_Asked], by: str, out: Path) -> int:
    """How many of the replies are there already; the half line of a kill is cut off.

    Raises:
      InputError: the file holds something else, which stays as it is.
    """
    *whole, rest = out.read_bytes().split(b"\n")
    try:
        lines = [line.decode() for line in whole]
        half = codecs.getincrementaldecoder("utf-8")().decode(rest)  # the last character may be cut
    except UnicodeDecodeError:
        raise InputError(f"{out} holds no replies; give a name that is free") from None
    if len(lines) + bool(rest) > len(wanted):
        raise InputError(f"{out} holds more replies than this input asks for; give another name")
    for number, (line, asked) in enumerate(zip(lines, wanted, strict=False), start=1):
        head = _head(asked, by)
        if not line.startswith(head):
            raise InputError(f"{out}:{number} {_other(line, asked)}; give another name")
    if rest:
        head = _head(wanted[len(lines)], by)
        if not (head.startswith(half) or half.startswith(head)):
            raise InputError(f"{out}:{len(lines) + 1} is no reply of ours; give another name")
        file.truncate(sum(len(line.encode()) + 1 for line in lines))
    return len(lines)


def _other(line: str, asked: _Asked) -> str:
    """Why a whole line is not the reply that belongs there."""
    try:
        row = json.loads(line)
        same = row["messages"] == list(map(message_row, asked.messages))
        if same and (row["id"], row["sample"]) == (asked.id, asked.sample):
            return "is a reply by another model, or with other settings"
    except (ValueError, KeyError, TypeError):
        return "is no reply of ours"
    return f"is a reply to another input (here belongs one to {asked.id})"


def _answered(
    speaker: Speaker, seed: int, start: int, chunk: Sequence[_Asked], out: Path
) -> Iterator[tuple[_Asked, Reply]]:
    """The replies to a chunk; of one that fails as a whole, those before the one to blame.

    Raises:
      InputError: names it, when the replies before it were given.
    """
    draws = int(np.random.SeedSequence((seed, start)).generate_state(1)[0])
    chat = speaker(draws)
    try:
        replies = chat([one.messages for one in chunk])
    except UnansweredError as error:
        given = itertools.takewhile(lambda reply: reply is not None, error.replies)
        yield from ((one, reply) for one, reply in zip(chunk, given, strict=False) if reply)
        raise InputError(f"{error}; what came so far is in {out}") from None
    except InputError as error:
        if len(chunk) == 1:
            raise InputError(
                f"{chunk[0].id}: {error}; the replies to what stands before it are in {out}"
            ) from None
        for place, one in enumerate(chunk):
            yield from _answered(speaker, seed, start + place, [one], out)
        return
    yield from zip(chunk, replies, strict=True)


def _tell(before: int, done: int, total: int, rate: float) -> None:
    """How far it is: on a terminal a line that changes, else one for each twentieth."""
    line = f"{done}/{total} replies, {rate:.0f} tokens/s"
    if sys.stderr.isatty():
        print(f"\r{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done * 20 // total > before * 20 // total:
        print(line, file=sys.stderr, flush=True)

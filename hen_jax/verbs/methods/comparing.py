"""What a comparison of methods is told: who takes part, over which conversations."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data.conversations import COLUMNS, conversation_of, group_of, turns, with_opening
from hen_jax.data.fields import truth_field
from hen_jax.data.records import parse_records
from hen_jax.data.rows import Row
from hen_jax.data.schemas import check_records, schema_named
from hen_jax.methods.measured import (
    MethodItem,
)
from hen_jax.methods.table import Parts
from hen_jax.runs.chats import back_end
from hen_jax.runs.sources import locate_source
from hen_jax.text.conversation import Message
from hen_jax.verbs.generate.generate import (
    GenerateRequest,
    to_answer,
)


@dataclasses.dataclass(frozen=True)
class Comparing:
    """One `hen compare`."""

    request: GenerateRequest  # who answers, and how
    methods: tuple[str, ...]  # NAME, NAME=BACKEND, NAME=METHOD@BACKEND
    input: Path
    out: Path
    schema: str | None = None  # of the input; None: prompts or messages
    bare: bool = False  # without the system messages of the input
    limit: int = 0  # conversations at most, spread evenly; 0: all
    apart: bool = False  # one method after another, for its own time and memory
    epitome: Path | None = None  # an identifier of EPITOME levels
    parts: Parts = Parts()

    def __post_init__(self):
        if self.limit < 0:
            raise InputError("--limit is 0 for all, or more")
        if not self.methods:
            raise InputError("--methods names none; give one or more, such as base coe_cbt")


class Contender(NamedTuple):
    """A method on a back-end, by the name that the table has for it."""

    name: str
    method: str
    request: GenerateRequest


def contenders(comparing: Comparing) -> list[Contender]:
    """What the names mean: `ebg`; `expert=adapter:DIR`, the plain method on the same model
    with that adapter; `trained=ebg@model:DIR`, a method on another model.

    Raises:
      InputError: two of one name, one of none, or a back-end that is none.
    """
    found = []
    for text in comparing.methods:
        name, equals, rest = text.partition("=")
        method, at, line = rest.partition("@")
        if not name:
            raise InputError(f"--methods: {text!r} has no name; give NAME=METHOD@BACKEND")
        if equals and not at:
            method, line = "base", rest
        request = _request_of(comparing.request, line) if equals else comparing.request
        found.append(Contender(name, method if equals else name, request))
    for one in found:
        if [other.name for other in found].count(one.name) > 1:
            raise InputError(f"--methods names {one.name!r} twice; call one NAME=METHOD@BACKEND")
    return found


def read_method_items(comparing: Comparing) -> list[MethodItem]:
    """The conversations of the input, each up to where a reply is due.

    Raises:
      InputError: a bad record (`file:line:field`), or none.
    """
    system = comparing.request.system
    if comparing.schema is None:

        def parse(row: Row) -> MethodItem:
            said = (
                conversation_of(row)
                if any(one in row for one in COLUMNS)
                else with_opening(row, turns(row, "prompt", "user"), "prompt")
            )
            return _item(row, group_of(row, said), said, comparing.bare, system)

        items = parse_records(comparing.input, parse, lambda one: one.id, number=True).whole(
            comparing.input
        )
    else:
        items = _of_schema(comparing, comparing.schema)
    count = min(comparing.limit or len(items), len(items))
    return [items[at * len(items) // count] for at in range(count)]


def _of_schema(comparing: Comparing, schema: str) -> list[MethodItem]:
    named, path = schema_named(schema), locate_source(str(comparing.input))
    found: dict[tuple[Message, ...], MethodItem] = {}
    for record in check_records(path, schema).whole(path):
        document = named.document(record)
        said, row = document.conversation.messages, {"id": document.id, **named.labels(record)}
        if said[-1].role == "assistant":
            row["reference"], said = said[-1].content, said[:-1]
        item = _item(row, document.group, said, comparing.bare, comparing.request.system)
        found.setdefault(item.messages, item)  # tasks of one statement may differ in what is bare
    return list(found.values())


def _item(
    row: Mapping[str, Any], group: str, said: Sequence[Message], bare: bool, system: str | None
) -> MethodItem:
    kept_ = tuple(one for one in said if not bare or one.role != "system")
    texts = ("emotion", "strategy", "reference")
    known: dict[str, Any] = {key: str(row[key]) for key in texts if row.get(key) is not None}
    if row.get("due") is not None:
        known["due"] = truth_field(dict(row), "due")
    return MethodItem(str(row["id"]), group, to_answer(kept_, system, "messages"), **known)


def _request_of(request: GenerateRequest, line: str) -> GenerateRequest:
    """The request for another back-end, or for an adapter of the same model."""
    if line.startswith("adapter:"):
        return dataclasses.replace(request, adapter=Path(line.removeprefix("adapter:")))
    back_end(line)
    return dataclasses.replace(request, model=None, backend=line, adapter=None)

"""What a judge is given: a conversation and one or more replies to its end, by who wrote them.

The schema `replies`, ours, is a line for each conversation: `{"prompt": TEXT or messages,
"replies": {"NAME": TEXT, ...}}`, and if known `id`, `group`, `context`. Of preference data the
players are `chosen` and `rejected`, of conversations `reply`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.data import fields, outside
from hen_jax.data.conversations import COLUMNS, group_of, messages_field, turns, with_opening
from hen_jax.data.patterns import contexts_beside
from hen_jax.data.preferences import Pair
from hen_jax.data.records import collect, parse_each
from hen_jax.data.rows import Row
from hen_jax.data.schemas import AS_NAMED, Columns, check_records, renamed, schema_named
from hen_jax.empathy.clusters import CONTEXTS
from hen_jax.text.conversation import Message

REPLIES = "replies"
"""The name of the schema of this module."""

CHOSEN, REJECTED = "chosen", "rejected"


class Judged(NamedTuple):
    """A conversation up to the replies, and the replies by their writers' names."""

    id: str
    group: str  # what intervals resample
    prompt: tuple[Message, ...]
    replies: Mapping[str, str]
    context: str | None = None
    kind: str = ""  # why the rejected one is worse
    preferred: str | None = None  # who wrote the better one, where the data says so


def read_judged(path: Path, schema: str = REPLIES, columns: Columns = AS_NAMED) -> list[Judged]:
    """The items of a file: of the schema `replies`, or of any other that `SCHEMAS` has.

    Raises:
      InputError: no such schema, a bad record (file:line:field), or no record.
    """
    if schema == REPLIES:
        own = partial(parse_judged, contexts=contexts_beside(path))
        named = own if not columns else lambda row: own(renamed(row, columns))
        rows = parse_each(path, named, lambda item: item.id, number=True)
        return collect(rows).whole(path)
    found = schema_named(schema)
    items: list[Judged] = []
    for record in check_records(path, schema, columns).whole(path):
        context = found.labels(record).get("context")
        if found.pairs is None:
            items.append(_of_document(found.document(record), context))
            continue
        for pair in found.pairs(record):
            items.append(_of_pair(pair, context))
    return items


def parse_judged(row: Row, contexts: Collection[str] = CONTEXTS) -> Judged:
    """One row of the schema `replies`, of one of `contexts` or of none.

    Raises:
      InputError: `field: what; allowed: ...`; also for an empty reply or two of one writer.
    """
    outside.refuse({key: value for key, value in row.items() if key != REPLIES}, outside.IN_ROWS)
    column = next((one for one in COLUMNS if one in row), None)
    said = turns(row, "prompt", "user") if column is None else messages_field(row, column)
    prompt = with_opening(row, said, column or "prompt")
    if prompt[-1].role != "user":
        raise InputError(f"{column or 'prompt'}: ends with the {prompt[-1].role}; end it where "
                         "the replies begin, with the user")  # fmt: skip
    given = fields.from_text(row.get(REPLIES))
    if not isinstance(given, dict) or not given:
        raise InputError(f"{REPLIES}: missing; give an object of the replies by who wrote them")
    texts = {str(name): _reply(given, name) for name in given}
    context = fields.label_field(row, "context", contexts) if row.get("context") else None
    return Judged(fields.name_field(row, "id"), group_of(row, prompt), prompt, texts, context)


def _reply(given: Row, name: str) -> str:
    try:
        return fields.text_field(given, name)
    except InputError as error:
        raise InputError(f"{REPLIES}.{error}") from None


def _of_pair(pair: Pair, context: str | None) -> Judged:
    replies = {CHOSEN: _spoken(pair.chosen), REJECTED: _spoken(pair.rejected)}
    return Judged(pair.id, pair.group, pair.prompt, replies, context, pair.kind, CHOSEN)


def _of_document(document: Any, context: str | None) -> Judged:
    *prompt, last = document.conversation.messages
    if last.role != "assistant" or not prompt:
        raise InputError(
            f"record {document.id}: must end with a reply to something; cut what the user says last"
        )
    return Judged(document.id, document.group, tuple(prompt), {"reply": last.content}, context)


def _spoken(messages: Iterable[Message]) -> str:
    """A continuation as one text; of several turns each with who says it."""
    said = tuple(messages)
    return said[0].content if len(said) == 1 else "\n".join(transcript(said))


def transcript(messages: Iterable[Message]) -> Iterator[str]:
    """`role: text` for each message."""
    for message in messages:
        yield f"{message.role}: {message.content}"

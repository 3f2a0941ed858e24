"""Which conversations a router learns from: settings -> tokens and labels of each part."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data.schemas import read_documents
from hen_jax.data.splits import part_number
from hen_jax.runs.rated import Folds
from hen_jax.runs.routing import RouterReading, read_tokens, users_of
from hen_jax.runs.sources import Source, locate_source
from hen_jax.text.tokenizer import ChatTokenizer

PartName = Literal["train", "calibration", "test", "unknown"]

_PARTS: tuple[PartName, ...] = ("train", "calibration", "test", "unknown")


@dataclasses.dataclass(frozen=True)
class RouteTo:
    """An expert, and conversations that are its own."""

    name: str
    sources: tuple[Source, ...]

    def __post_init__(self):
        if not self.name.isidentifier():
            raise InputError(f"expert name {self.name!r}; give letters, digits and underscores")
        if not self.sources:
            raise InputError(f"expert {self.name} has no sources; give conversations that are its")


class RoutedPart(NamedTuple):
    """What is read of the conversations of one part: of each its beginning with one message of the
    user, with two, and so on, as a router meets it. Those of `unknown` belong to no expert.
    """

    part: PartName
    documents: list[np.ndarray]  # [n] int32 each
    labels: np.ndarray  # [N] int32; -1 in `unknown`
    messages: np.ndarray  # [N] int32: how many of the user's are read
    whole: np.ndarray  # [N] bool: no longer beginning of that conversation is read
    groups: list[str]
    texts: list[str]  # what was read, for rankers of words


class _Beginning(NamedTuple):
    group: str
    text: str
    tokens: np.ndarray
    messages: int
    whole: bool
    label: int


def routed_parts(
    routes: Sequence[RouteTo],
    unknown: Sequence[Source],
    folds: Folds,
    reading: RouterReading,
    tokenizer: ChatTokenizer,
) -> dict[PartName, RoutedPart]:
    """The conversations of all experts, dealt by group: the fold that is held out is the test, the
    next one calibrates, all others train. A conversation that stands in a source twice counts once.

    Raises:
      InputError: a bad file (file:line:field), a group of two experts, or a part in which an
        expert has nothing.
    """
    found: dict[PartName, list[_Beginning]] = {part: [] for part in _PARTS}
    expert_of: dict[str, int] = {}
    asked = [(number, one.sources) for number, one in enumerate(routes)]
    for label, sources in [*asked, (-1, tuple(unknown))]:
        seen: set[tuple[str, str]] = set()
        for one in _read(sources, label, reading, tokenizer):
            if (one.group, one.text) in seen:
                continue
            seen.add((one.group, one.text))
            if expert_of.setdefault(one.group, label) != label:
                raise InputError(
                    f"group {one.group!r} is of two experts; what is one's is no other's"
                )
            found["unknown" if label < 0 else _part(one.group, folds)].append(one)
    parts: dict[PartName, RoutedPart] = {
        part: _of_beginnings(part, of_part) for part, of_part in found.items()
    }
    _require_all(parts, routes)
    return parts


def _of_beginnings(part: PartName, found: Sequence[_Beginning]) -> RoutedPart:
    return RoutedPart(
        part,
        [one.tokens for one in found],
        np.asarray([one.label for one in found], np.int32),
        np.asarray([one.messages for one in found], np.int32),
        np.asarray([one.whole for one in found], bool),
        [one.group for one in found],
        [one.text for one in found],
    )


def _read(
    sources: Sequence[Source], label: int, reading: RouterReading, tokenizer: ChatTokenizer
) -> Iterator[_Beginning]:
    """Every beginning of each conversation."""
    for source in sources:
        path = locate_source(source.path)
        for document in read_documents(path, source.schema, source.columns.given()):
            try:
                users = users_of(document.conversation.messages, reading)
            except InputError as error:
                raise InputError(f"{path}: record {document.id}: {error}") from None
            for count in range(1, len(users) + 1):
                text = "\n".join(message.content for message in users[:count])
                tokens = read_tokens(users[:count], tokenizer, reading)
                whole = count == len(users)
                yield _Beginning(document.group, text, tokens, count, whole, label)


def _part(group: str, folds: Folds) -> PartName:
    fold = part_number(group, folds.count, folds.salt)
    if fold == folds.held:
        return "test"
    return "calibration" if fold == (folds.held + 1) % folds.count else "train"


def _require_all(parts: dict[PartName, RoutedPart], routes: Sequence[RouteTo]) -> None:
    for part in _PARTS[:3]:
        for number, route in enumerate(routes):
            if number not in parts[part].labels:
                raise InputError(
                    f"the {part} part has no conversation of {route.name}; give it more groups, or "
                    "fewer config.folds.count"
                )

"""Which data a run reads: settings -> documents of each part."""

import dataclasses
from pathlib import Path
from typing import Literal

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.examples import Document
from hen_jax.data.hed import hed_conversation, read_hed
from hen_jax.data.splits import Splits, split
from hen_jax.data.steered import read_steered, steered_conversation

SHIPPED = "shipped:"
"""Before the name of a set that comes with the package, as in `shipped:hed/hed.en.jsonl`."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A data file and its schema; `path` is a file or `shipped:NAME`."""

    schema: Literal["hed", "steered"]
    path: str


def documents(sources: tuple[Source, ...]) -> Splits[Document]:
    """All documents of the sources, dealt to train, valid and test by their group.

    Raises:
      InputError: no source, a file that does not exist, or a bad record (file:line:field).
    """
    if not sources:
        raise InputError("config.sources is empty; name at least one data file")
    return split(
        [document for source in sources for document in _read(source)],
        lambda document: document.group,
    )


def _read(source: Source) -> list[Document]:
    path = _locate(source.path)
    if source.schema == "hed":
        return [
            Document(record.id, record.statement_id, hed_conversation(record))
            for record in read_hed(path)
        ]
    return [
        Document(record.id, record.group, steered_conversation(record))
        for record in read_steered(path)
    ]


def _locate(path: str) -> Path:
    if path.startswith(SHIPPED):
        return samples.path(path.removeprefix(SHIPPED))
    return Path(path)

"""Which data a run reads: settings -> documents of each part."""

import dataclasses
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.data import samples
from hen_jax.data.examples import Document
from hen_jax.data.schemas import read_documents
from hen_jax.data.splits import Splits, split

SHIPPED = "shipped:"
"""Before the name of a set that comes with the package, as in `shipped:hed/hed.en.jsonl`."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A data file and its schema; `path` is a file or `shipped:NAME`."""

    schema: str  # a name of `hen_jax.data.schemas.SCHEMAS`
    path: str


def documents(sources: tuple[Source, ...]) -> Splits[Document]:
    """All documents of the sources, dealt to train, valid and test by their group.

    Raises:
      InputError: no source, no such schema or file, or a bad record (file:line:field).
    """
    if not sources:
        raise InputError("config.sources is empty; name at least one data file")
    return split(
        [
            document
            for source in sources
            for document in read_documents(_locate(source.path), source.schema)
        ],
        lambda document: document.group,
    )


def _locate(path: str) -> Path:
    if path.startswith(SHIPPED):
        return samples.path(path.removeprefix(SHIPPED))
    return Path(path)

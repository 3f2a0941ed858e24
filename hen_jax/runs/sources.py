"""Which data a run reads: settings -> documents of each part, or examples ready to batch."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast, get_args

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Positive, check_ranges
from hen_jax.data import samples
from hen_jax.data.cache import cache_key, cached, file_fingerprint
from hen_jax.data.examples import Document, Encoded, encode_parts
from hen_jax.data.pipeline import Mixture, PipelineConfig
from hen_jax.data.schemas import read_documents, stream_documents
from hen_jax.data.splits import SALT, Part, Splits, part_of, split_records, why_empty
from hen_jax.data.stores import Store, in_memory_parts
from hen_jax.io.packages import cache_folder
from hen_jax.text.tokenizer import ChatTokenizer

SHIPPED = "shipped:"
"""Before the name of a set that comes with the package, as in `shipped:hed/hed.en.jsonl`."""


@dataclasses.dataclass(frozen=True)
class ColumnNames:
    """What a file calls the columns of its schema, where it calls them otherwise."""

    id: str | None = None
    group: str | None = None
    messages: str | None = None
    system: str | None = None
    history: str | None = None
    prompt: str | None = None
    completion: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    label: str | None = None
    rating: str | None = None

    def given(self) -> dict[str, str]:
        """The schema's name -> the file's."""
        return {ours: name for ours, name in dataclasses.asdict(self).items() if name is not None}


@dataclasses.dataclass(frozen=True)
class Source:
    """A data file and its schema; `path` is a file or `shipped:NAME`."""

    schema: str  # a name of `hen_jax.data.schemas.SCHEMAS`
    path: str  # a file, or shipped:NAME
    weight: Positive | None = None  # rows it gives beside the others'; for all sources or for none
    columns: ColumnNames = ColumnNames()  # such as {"prompt": "question"}

    def __post_init__(self):
        check_ranges(self)


class Prepared(NamedTuple):
    """The examples of the parts that a run uses."""

    train: Mixture
    valid: Mixture


def prepared(
    sources: tuple[Source, ...], config: PipelineConfig, tokenizer: ChatTokenizer
) -> Prepared:
    """The sources' documents, dealt to their parts, rendered for `config`.

    Without weights the sources are one set and share rows; with weights each is a set of its own.
    With `config.cache` the examples are written to the cache folder, once for the same files, code,
    tokenizer, format and lengths, and no set need fit in memory.

    Raises:
      InputError: no source, weights for some of them only, or a bad file (file:line:field).
    """
    if not sources:
        raise InputError("config.sources is empty; name at least one data file")
    weights = [source.weight for source in sources if source.weight is not None]
    if len(weights) not in (0, len(sources)):
        raise InputError(
            f"{len(weights)} of {len(sources)} config.sources have a weight; give it to all or none"
        )
    sets = [(source,) for source in sources] if weights else [sources]
    train = Mixture(
        tuple(_store(one, "train", config, tokenizer) for one in sets), tuple(weights) or (1.0,)
    )
    # Every held-out example counts once, so that a loss does not depend on the weights.
    valid = _store(sources, "valid", config, tokenizer)
    for part, stores in (("train", train.stores), ("valid", (valid,))):
        if not all(map(len, stores)):
            raise InputError(_nothing(cast(Part, part), sources, config.row_length))
    return Prepared(train, Mixture((valid,), (1.0,)))


def _nothing(part: Part, sources: tuple[Source, ...], row_length: int) -> str:
    """Why a part is empty: few groups hold all of the documents, or none of it fits into a row."""
    groups = Counter(
        document.group
        for one in get_args(Part)
        for document in stream_part(sources, cast(Part, one))
    )
    if not groups:
        return "no record in config.sources; name files that hold some"
    if mine := sum(size for name, size in groups.items() if part_of(name) == part):
        return (
            f"the {part} part is empty: its documents ({mine}) are all longer than "
            f"data.row_length {row_length}; make rows longer"
        )
    return why_empty(part, groups)


def _store(
    sources: tuple[Source, ...], part: Part, config: PipelineConfig, tokenizer: ChatTokenizer
) -> Store:
    def encoded() -> Iterator[Encoded]:
        return encode_parts(
            stream_part(sources, part),
            tokenizer,
            max_length=config.row_length,
            overlong=config.overlong,
        )

    if config.cache:
        files = [
            (source.schema, file_fingerprint(locate_source(source.path)), source.columns.given())
            for source in sources
        ]
        key = cache_key(config, [part, SALT, files], tokenizer)
        store = cached(cache_folder() / "examples", key, encoded)
    else:
        store = in_memory_parts(encoded())
    print(f"{part}: {store.summary}")
    return store


def stream_part(sources: tuple[Source, ...], part: Part) -> Iterator[Document]:
    """The documents of one part, one after another.

    Raises:
      InputError: a bad file or record, when its turn comes.
    """
    for source in sources:
        for document in stream_documents(
            locate_source(source.path), source.schema, source.columns.given()
        ):
            if part_of(document.group) == part:
                yield document


def documents(sources: tuple[Source, ...]) -> Splits[Document]:
    """All documents of the sources, dealt to train, valid and test by their group.

    Raises:
      InputError: no source, no such schema or file, or a bad record (file:line:field).
    """
    if not sources:
        raise InputError("config.sources is empty; name at least one data file")
    return split_records(
        [
            document
            for source in sources
            for document in read_documents(
                locate_source(source.path), source.schema, source.columns.given()
            )
        ],
        lambda document: document.group,
    )


def locate_source(path: str) -> Path:
    """The file of a source: as given, or the shipped set of that name."""
    if path.startswith(SHIPPED):
        return samples.path(path.removeprefix(SHIPPED))
    return Path(path)

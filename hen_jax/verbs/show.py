"""`hen show`: one example as the model will see it, with what trains set apart."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hen_jax.core.errors import InputError
from hen_jax.data.examples import Document, Example, encode
from hen_jax.data.pipeline import PipelineConfig
from hen_jax.data.schemas import AS_NAMED, Columns
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import ModelSettings, ensure_model
from hen_jax.runs.settings import settings
from hen_jax.runs.sources import ColumnNames, Source, stream_part
from hen_jax.text.tokenizer import ChatTokenizer
from hen_jax.verbs.run.launch import load_config

TRAINED, CONTROL, OTHER, END = "\033[1;32m", "\033[7m", "\033[2m", "\033[0m"
"""Bold green trains, reversed is a control token, dim is neither."""


@dataclasses.dataclass(frozen=True)
class WantedExample:
    """Which example to show, and how."""

    sources: tuple[Source, ...]
    model: ModelSettings
    example: int = 1  # of the train part, from 1
    row_length: int = PipelineConfig().row_length
    colour: bool = False


def from_config(
    config_file: str, overrides: list[str], example: int = 1, *, colour: bool = False
) -> WantedExample:
    """What a run of that config would train on.

    Raises:
      InputError: no such file, or a config without a model and sources.
    """
    config = load_config(config_file, overrides)
    for name in ("model", "sources"):
        if name not in config:
            raise InputError(f"{config_file}: config.{name} is missing; nothing to show without it")
    nodes: Any = config.sources
    sources = tuple(
        settings(Source, node, f"config.sources[{at}]") for at, node in enumerate(nodes)
    )
    model = settings(ModelSettings, config.model, "config.model")
    # Whatever a stage calls the group that says how its batches are made.
    groups: list[Any] = [group for group in config.values() if isinstance(group, ConfigDict)]
    lengths = [group.row_length for group in groups if "row_length" in group]
    row_length = lengths[0] if lengths else PipelineConfig().row_length
    return WantedExample(sources, model, example, row_length, colour)


def from_file(
    model: Path,
    data: Path,
    schema: str,
    example: int = 1,
    *,
    colour: bool = False,
    columns: Columns = AS_NAMED,
) -> WantedExample:
    """A record of one file with the tokenizer of one model folder.

    Raises:
      InputError: `columns` names a column that no schema has.
    """
    source = Source(schema, str(data), columns=settings(ColumnNames, columns, "--columns"))
    return WantedExample((source,), ModelSettings(str(model)), example, colour=colour)


def show(wanted: WantedExample) -> str:
    """Prints the example and what is counted in it; returns what was printed.

    Raises:
      InputError: there is no such example, or nothing of it fits into a row.
    """
    document = _pick(wanted)
    tokenizer = known_tokenizer(ensure_model(wanted.model))
    encoded = encode([document], tokenizer, max_length=wanted.row_length)
    if not encoded.examples:
        raise InputError(
            f"record {document.id}: its last exchange alone is longer than a row of "
            f"{wanted.row_length}; no run trains on it. Raise row_length"
        )
    cut = f"; its oldest turns are left out to fit {wanted.row_length}" if encoded.truncated else ""
    lines = [
        f"record {document.id}, example {wanted.example} of the train part{cut}",
        painted(encoded.examples[0], tokenizer, colour=wanted.colour),
        counted(encoded.examples[0], tokenizer),
    ]
    print("\n".join(lines))
    return "\n".join(lines)


def painted(example: Example, tokenizer: ChatTokenizer, *, colour: bool) -> str:
    """The text of an example; without colour, what trains stands between `⟦` and `⟧`.

    A line feed is shown as `↵` and one, so that none is overlooked.
    """
    controls = np.isin(example.tokens, tokenizer.tokenizer.all_special_ids)
    kinds = list(zip(example.mask.tolist(), controls.tolist(), strict=True))
    text, end, done = "", 0, ""
    for (trains, control), group in itertools.groupby(kinds):
        end += len(list(group))
        # A decoder may drop the space before the first word, so a part alone is not decoded.
        whole = str(tokenizer.tokenizer.decode(example.tokens[:end].tolist()))
        part, done = whole[len(done) :].replace("\n", "↵\n"), whole
        if colour:
            text += f"{(TRAINED if trains else OTHER) + (CONTROL if control else '')}{part}{END}"
        else:
            text += f"⟦{part}⟧" if trains else part
    return text.replace("⟧⟦", "")


def counted(example: Example, tokenizer: ChatTokenizer) -> str:
    """How many tokens there are, train, and are control tokens, and what the format is."""
    tokens, trained = len(example.tokens), int(example.mask.sum())
    controls = int(np.isin(example.tokens, tokenizer.tokenizer.all_special_ids).sum())
    stretches = int((np.diff(example.mask.astype(int), prepend=0) == 1).sum())
    said = tokenizer.chat_format.default_system
    default = "" if said is None else f", which says by default {said!r}"
    return (
        f"{tokens} tokens: {trained} train ({trained / tokens:.0%}) in {stretches} "
        f"repl{'y' if stretches == 1 else 'ies'}, {tokens - trained} do not; {controls} control "
        f"tokens\nchat format {tokenizer.chat_format.name}{default}"
    )


def _pick(wanted: WantedExample) -> Document:
    if wanted.example < 1:
        raise InputError(f"--example {wanted.example}; examples are counted from 1")
    found = stream_part(wanted.sources, "train")
    document = next(itertools.islice(found, wanted.example - 1, None), None)
    if document is None:
        raise InputError(f"--example {wanted.example}: the train part has fewer examples")
    return document

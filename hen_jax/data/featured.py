"""Conversations with features of their speaker, each behind places for a soft prefix."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.core.types import Array, Batch
from hen_jax.data import fields
from hen_jax.data.examples import Document, Example, Shifted, encode
from hen_jax.data.packing import lay_out_row, stack_rows
from hen_jax.data.records import parse_records
from hen_jax.data.rows import Row
from hen_jax.text.conversation import Conversation
from hen_jax.text.tokenizer import ChatTokenizer


class SpeakerFeatures(NamedTuple):
    """What is known of the one who speaks, after the last turn."""

    id: str
    traits: tuple[float, ...]
    reactions: tuple[float, ...]


class Featured(NamedTuple):
    """An example with the features of its conversation."""

    example: Example
    features: SpeakerFeatures


class FeaturedBatch(NamedTuple):
    """Rows of one conversation each; its first positions are places of the prefix."""

    batch: Batch  # [B, T]
    traits: Array  # [B, I] float32
    reactions: Array  # [B, J] float32


def read_features(path: Path) -> dict[str, SpeakerFeatures]:
    """Lines of `{"id", "traits": [...], "reactions": [...]}`, by id; all of the same sizes.

    Raises:
      InputError: a bad line (`file:line: field: what`), or sizes that differ.
    """
    found = parse_records(path, _parse, lambda one: one.id).whole(path)
    sizes = {(len(one.traits), len(one.reactions)) for one in found}
    if len(sizes) > 1:
        raise InputError(f"{path}: traits or reactions of several lengths; give every line as many")
    return {one.id: one for one in found}


def featured(
    documents: Sequence[Document],
    features: Mapping[str, SpeakerFeatures],
    tokenizer: ChatTokenizer,
    longest: int,
) -> tuple[list[Featured], tuple[str, ...]]:
    """The documents as examples whose last reply trains, and the ids of those that are too long.

    Raises:
      InputError: a document without features.
    """
    for one in documents:
        if one.id not in features:
            raise InputError(f"record {one.id}: no features of it; `hen build traits` writes them")
    shown = [_last_alone(one) for one in documents]
    found = encode(shown, tokenizer, max_length=longest, overlong="drop")
    return [Featured(one, features[one.id]) for one in found.examples], found.dropped


def featured_batch(
    rows: Sequence[Featured | None], row_length: int, prefix: int, sizes: tuple[int, int]
) -> FeaturedBatch:
    """One conversation a row behind `prefix` places; None gives a row of padding."""
    laid, known = [], [np.zeros((len(rows), size), np.float32) for size in sizes]
    for at, row in enumerate(rows):
        if row is not None:
            known[0][at], known[1][at] = row.features.traits, row.features.reactions
        documents = [] if row is None else [_shifted(row.example, prefix)]
        laid.append(lay_out_row(documents, row_length))
    return FeaturedBatch(stack_rows(laid), *known)


def _parse(row: Row) -> SpeakerFeatures:
    fields.known_keys(row, ("id", "traits", "reactions"), ("states",))
    return SpeakerFeatures(
        fields.name_field(row, "id"), _numbers(row, "traits"), _numbers(row, "reactions")
    )


def _numbers(row: Row, key: str) -> tuple[float, ...]:
    value = fields.from_text(row.get(key))
    if not isinstance(value, list) or not value:
        raise InputError(f"{key}: give a list of numbers")
    return tuple(fields.number_field({key: one}, key, -1e6, 1e6) for one in value)


def _last_alone(document: Document) -> Document:
    messages = document.conversation.messages
    last = max((at for at, one in enumerate(messages) if one.role == "assistant"), default=-1)
    kept = tuple(
        dataclasses.replace(one, trains=False) if one.role == "assistant" and at != last else one
        for at, one in enumerate(messages)
    )
    return dataclasses.replace(document, conversation=Conversation(kept))


def _shifted(example: Example, prefix: int) -> Shifted:
    """The example behind `prefix` places, which hold its first token and train nothing."""
    tokens = np.r_[np.full(prefix, example.tokens[0]), example.tokens].astype(np.int32)
    mask = np.r_[np.zeros(prefix, bool), example.mask]
    return Shifted(tokens[:-1], tokens[1:], mask[1:])

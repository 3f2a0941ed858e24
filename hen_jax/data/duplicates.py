"""Texts that occur twice, exactly or nearly, and groups that are in two parts at once."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.data.examples import Document

_NO_WORD = re.compile(r"[\W_]+")

SHINGLE = 5
"""Characters of a shingle, in Chinese as in English."""

PERMUTATIONS, BANDS = 64, 16
"""Sixteen bands of four: texts of similarity 0.8 share a band with probability 0.9998."""


class Copy(NamedTuple):
    """Item `index` repeats the earlier item `first`."""

    first: int
    index: int
    similarity: float  # Jaccard similarity of their shingles; 1 for the same text


class Leaks(NamedTuple):
    """What two parts share; a model trained on one is not tested by the other."""

    groups: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]  # ids of documents that say the same

    def __bool__(self):
        return bool(self.groups or self.texts)


def spoken(document: Document) -> str:
    """All that the document says, without its system message."""
    messages = document.conversation.messages
    return "\n".join(message.content for message in messages if message.role != "system")


def normal_form(text: str) -> str:
    """The text without case, width, spaces and punctuation: `Ｈi, there!` is `hithere`."""
    return _NO_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())


def duplicates(texts: Sequence[str], threshold: float = 1.0) -> list[Copy]:
    """Items that repeat an earlier one; `threshold` below 1 finds near copies too.

    Near copies are found by MinHash over shingles of five characters and then measured, so what is
    reported is true and what is at the threshold may rarely be missed.
    """
    forms = [normal_form(text) for text in texts]
    first_of: dict[str, int] = {}
    copies, fresh = [], []
    for index, form in enumerate(forms):
        first = first_of.setdefault(form, index)
        if first != index:
            copies.append(Copy(first, index, 1.0))
        else:
            fresh.append(index)
    if threshold < 1:
        copies += _near({index: _shingles(forms[index]) for index in fresh}, threshold)
    return sorted(copies, key=lambda copy: copy.index)


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' shingles, from 0 to 1."""
    own, theirs = _shingles(normal_form(one)), _shingles(normal_form(other))
    return len(own & theirs) / len(own | theirs)


def without_duplicates(documents: Sequence[Document], threshold: float = 1.0) -> list[Document]:
    """The documents of which none earlier says the same."""
    repeated = {copy.index for copy in duplicates(list(map(spoken, documents)), threshold)}
    return [document for index, document in enumerate(documents) if index not in repeated]


def leaks(train: Sequence[Document], held_out: Sequence[Document]) -> Leaks:
    """Groups, and documents that say the same, in both parts."""
    groups = {document.group for document in train} & {document.group for document in held_out}
    ids = {normal_form(spoken(document)): document.id for document in train}
    forms = ((document.id, normal_form(spoken(document))) for document in held_out)
    texts = tuple((ids[form], name) for name, form in forms if form in ids)
    return Leaks(tuple(sorted(groups)), texts)


def _shingles(form: str) -> set[str]:
    return {form[at : at + SHINGLE] for at in range(max(1, len(form) - SHINGLE + 1))}


def _near(shingles: Mapping[int, set[str]], threshold: float) -> Iterable[Copy]:
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for index, own in shingles.items():
        candidates: set[int] = set()
        bands = _signature(own).reshape(BANDS, -1)
        for band, values in enumerate(bands):
            bucket = buckets.setdefault((band, values.tobytes()), [])
            candidates.update(bucket)
            bucket.append(index)
        measured = [
            (len(own & shingles[other]) / len(own | shingles[other]), -other)
            for other in candidates
        ]
        best, other = max(measured, default=(0.0, 0))
        if best >= threshold:
            yield Copy(-other, index, best)


_PRIME = np.uint64((1 << 31) - 1)
_generator = np.random.default_rng(0)
_FACTORS, _OFFSETS = _generator.integers(1, int(_PRIME), (2, PERMUTATIONS, 1), dtype=np.uint64)


def _signature(shingles: Iterable[str]) -> np.ndarray:
    hashes = [
        int.from_bytes(hashlib.blake2b(one.encode(), digest_size=4).digest()) for one in shingles
    ]
    return ((np.asarray(hashes, np.uint64) * _FACTORS + _OFFSETS) % _PRIME).min(axis=1)

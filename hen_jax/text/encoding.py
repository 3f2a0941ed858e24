"""Runs as token ids, and which of these train; nearly all the time of rendering is spent here."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hen_jax.text.runs import TextRun

if TYPE_CHECKING:
    from tokenizers import Tokenizer

AT_ONCE = 8192
"""Texts given to the tokenizer together: its own records of each take far more than the ids."""


class EncodedRuns(NamedTuple):
    """Texts encoded; offsets of those alone whose mask cannot be known without, as they cost."""

    ids: dict[str, np.ndarray]  # [n] int32
    heads: dict[str, int]  # tokens of each header
    offsets: dict[str, list[tuple[int, int]]]


def encode_runs(runs: Iterable[TextRun], backend: "Tokenizer") -> EncodedRuns:
    """The texts of all runs, each distinct one once.

    Where the ids of a header alone are the first ids of header and reply, these tokens are the
    header and the rest are the reply. Else a token may hold parts of both, and offsets decide.
    """
    headers: dict[str, set[str]] = {}
    spanned: set[str] = set()
    for run in runs:
        if run.control is None:
            found = headers.setdefault(run.text, set())
            if run.trained and run.header and run.trained[-1][1] == len(run.text):
                found.add(run.text[: run.trained[0][0]])
            elif run.trained:
                spanned.add(run.text)
    heads = {head for found in headers.values() for head in found}
    with _plain_text_only(backend):
        ids = _ids(list(headers.keys() | heads), backend)
        for text, found in headers.items():
            if any(not np.array_equal(ids[text][: len(ids[head])], ids[head]) for head in found):
                spanned.add(text)
        exact = backend.encode_batch(list(spanned), add_special_tokens=False)
    offsets = {text: one.offsets for text, one in zip(spanned, exact, strict=True)}
    return EncodedRuns(ids, {head: len(ids[head]) for head in heads}, offsets)


def trained_tokens(run: TextRun, count: int, encoded: EncodedRuns) -> np.ndarray:
    """`[count]` bool: which tokens of a run train."""
    if run.control is not None:
        return np.ones(1, bool)
    if run.text in encoded.offsets:
        return np.array(_trained_between(encoded.offsets[run.text], run.trained), bool)
    return np.arange(count) >= encoded.heads[run.text[: run.trained[0][0]]]


def _ids(texts: list[str], backend: "Tokenizer") -> dict[str, np.ndarray]:
    ids: dict[str, np.ndarray] = {}
    for start in range(0, len(texts), AT_ONCE):
        part = texts[start : start + AT_ONCE]
        encodings = backend.encode_batch_fast(part, add_special_tokens=False)
        for text, encoding in zip(part, encodings, strict=True):
            ids[text] = np.array(encoding.ids, np.int32)
    return ids


@contextlib.contextmanager
def _plain_text_only(backend: "Tokenizer") -> Iterator[None]:
    """Control tokens written out in a text are encoded as the characters they are.

    Nor is a text taken for the first of its conversation, before which some tokenizers put a space.
    """
    from tokenizers.pre_tokenizers import Metaspace  # with transformers, when there is a tokenizer

    before, splitter = backend.encode_special_tokens, backend.pre_tokenizer
    # A tokenizer.json may ask to cut or fill every text; a part of a conversation must be whole.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    spaces_first = isinstance(splitter, Metaspace) and splitter.prepend_scheme == "first"
    if spaces_first:
        splitter.prepend_scheme = "never"
    try:
        yield
    finally:
        backend.encode_special_tokens = before
        if spaces_first:
            splitter.prepend_scheme = "first"


def _trained_between(
    offsets: list[tuple[int, int]], spans: tuple[tuple[int, int], ...]
) -> list[bool]:
    """A token trains if the character it begins with lies in a trained span.

    Its begin is the smaller of its own offset and the end of the token before it. Neither alone
    will do: byte-level post-processing moves the offset past leading white space, and where one
    character takes several tokens, the end of the token before lies past that character.
    """
    mask, covered = [], 0
    for start, end in offsets:
        begin = min(start, covered)
        mask.append(any(first <= begin < last for first, last in spans))
        covered = max(covered, end)
    return mask

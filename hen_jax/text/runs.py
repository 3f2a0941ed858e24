"""The pieces of a conversation as runs: control tokens, and the plain text between them.

A tokenizer cuts its input at control tokens before it does anything else, so encoding each run
alone gives the ids of the whole, while encoding each message alone would not: a header's last
newline and a message's first may be one token.
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hen_jax.text.script import Piece


class Control(NamedTuple):
    """A control token, and the sides on which it swallows white space."""

    index: int
    left: bool
    right: bool


class TextRun(NamedTuple):
    """A stretch of plain text between control tokens, or one control token."""

    text: str
    control: int | None
    trained: tuple[tuple[int, int], ...]  # character spans of `text`
    header: bool = False  # only what the format wrote comes before the first of these spans
    opens: bool = False  # begins a turn


Cut = Callable[[str], tuple[tuple[str, Control | None], ...]]
"""Text of the format -> its parts, each with the control token it may be."""


def cutter(controls: dict[str, Control]) -> Cut:
    """A `Cut` at those control tokens; formats write few different texts, so all are kept."""
    pattern = re.compile("(" + "|".join(map(re.escape, controls)) + ")")

    @functools.cache
    def cut(text: str) -> tuple[tuple[str, Control | None], ...]:
        return tuple((part, controls.get(part)) for part in pattern.split(text) if part)

    return cut


_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""White space as the tokenizers library means it; Python's own also has the separators 28 to 31."""


def runs_of(pieces: list[Piece], cut: Cut) -> Iterator[TextRun]:
    """The runs of a conversation; what a person said is never cut at a control token."""
    text, trained, header, swallow = "", [], True, False
    for piece in pieces:
        opens = piece.opens
        for part, control in ((piece.text, None),) if piece.said else cut(piece.text):
            if control is None:
                part = part.lstrip(_SPACE) if swallow else part
                swallow = swallow and not part
                if piece.trains and part:
                    trained.append((len(text), len(text) + len(part)))
                elif piece.said and not trained:
                    header = False
                text += part
                continue
            if control.left:
                text = text.rstrip(_SPACE)
                trained = [(start, min(end, len(text))) for start, end in trained]
            if text:
                yield TextRun(text, None, tuple(trained), header)
            yield _control(part, control.index, piece.trains, opens)
            text, trained, header, swallow, opens = "", [], True, control.right, False
    if text:
        yield TextRun(text, None, tuple(trained), header)


@functools.lru_cache(maxsize=1024)
def _control(text: str, index: int, trains: bool, opens: bool) -> TextRun:
    return TextRun(text, index, ((0, len(text)),) if trains else (), opens=opens)

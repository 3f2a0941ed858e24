"""A reply as text while its tokens come: only whole characters, and nothing that a stop string may
still take back.

```
stream, text = TextStream(), ""
for token in tokens:
    stream, more = grow(stream, [token], decode, stops)
    text += more
text += rest_of(stream, decode)
```
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Decode = Callable[[Sequence[int]], str]
"""Ids to text, as a tokenizer's `decode`."""

_HALF = "\ufffd"
"""What a decoder writes for bytes that are no character, yet."""


class TextStream(NamedTuple):
    """What was given so far, as far as it decides what comes."""

    window: tuple[int, ...] = ()  # the last ids: those of the last text, and what it lacks
    shown: int = 0  # how many of them are text already
    held: str = ""  # text that a stop string may begin in
    ended: bool = False  # a stop string came: nothing more is given


def grow(
    stream: TextStream, ids: Sequence[int], decode: Decode, stops: Sequence[str] = ()
) -> tuple[TextStream, str]:
    """The stream with more ids, and the text that they make certain.

    All that is given, with `rest_of` at the end, is `decode` of all ids, up to the first stop
    string. With the stop string "END" the texts "the E", "N" give "the " and "".
    """
    fresh = ""
    for token in ids:
        stream, more = _decoded(stream, token, decode)
        fresh += more
    if stream.ended:
        return stream, ""
    text = stream.held + fresh
    if (found := first_stop(text, stops)) is not None:
        return stream._replace(held="", ended=True), text[: found[0]]
    certain = len(text) - _begun(text, stops)
    return stream._replace(held=text[certain:]), text[:certain]


def rest_of(stream: TextStream, decode: Decode) -> str:
    """What is held back, now that nothing comes any more; half a character as U+FFFD."""
    if stream.ended:
        return ""
    before, after = decode(stream.window[: stream.shown]), decode(stream.window)
    return stream.held + after[len(before) :]


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the first stop string begins that occurs in the text, and which it is."""
    return min(((text.find(stop), stop) for stop in stops if stop in text), default=None)


def _decoded(stream: TextStream, token: int, decode: Decode) -> tuple[TextStream, str]:
    """A token more, and the text it completes.

    Only a window is decoded: the ids of the last text, as what a decoder makes of the first id of
    all may differ, and those that are not text yet.
    """
    window = (*stream.window, token)
    before, after = decode(window[: stream.shown]), decode(window)
    if len(after) <= len(before) or after.endswith(_HALF):
        return stream._replace(window=window), ""
    return stream._replace(window=window[stream.shown :], shown=len(window) - stream.shown), after[
        len(before) :
    ]


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of the text may be the beginning of a stop string."""
    return max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )

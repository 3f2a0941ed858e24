"""What goes wrong at an endpoint: said in a line, without the key, and whether to try again."""

import os
from typing import TYPE_CHECKING, NamedTuple

from hen_jax.core.errors import InputError

if TYPE_CHECKING:
    import openai

KEY_NAMES = ("HEN_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key; the first that is set counts."""

PASSING = (408, 409, 425, 429)
"""HTTP states, besides all from 500 on, that may be over at the next try."""

LONGEST_PAUSE = 60.0
"""Seconds before a next try at most, whatever the server asks for."""


class Trouble(NamedTuple):
    """What went wrong."""

    line: str
    pause: float | None  # seconds before the next try; None: it would not help


def trouble_of(error: Exception, timeout: float, pause: float) -> Trouble:
    """What went wrong in one line, without the key, and whether to try again."""
    import openai

    pause = min(pause, LONGEST_PAUSE)
    if isinstance(error, openai.APIStatusError):
        state = error.status_code
        line = f"HTTP {state}: {_said(error)}{_remedy(state)}"
        if state not in PASSING and state < 500:
            return Trouble(line, None)
        return Trouble(line, max(pause, _asked_pause(error.response.headers.get("retry-after"))))
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Trouble(f"no whole answer within {timeout:g} s", pause)
    if isinstance(error, openai.APIConnectionError):
        why = short(str(error.__cause__ or error)) or type(error.__cause__).__name__
        return Trouble(f"no connection, or it was cut ({why})", pause)
    return Trouble(short(str(error), 160), pause)


def _said(error: "openai.APIStatusError") -> str:
    """The server's own words, out of the object they come in as a rule."""
    body = error.body
    words = body.get("message") if isinstance(body, dict) else None
    return short(words if isinstance(words, str) else error.message)


def _remedy(state: int) -> str:
    if state in (401, 403):
        return f"; set {' or '.join(KEY_NAMES)} in the environment to a key that it takes"
    if state == 404:
        return "; look at the address, which ends in /v1 as a rule, and at the model's name"
    return ""


def _asked_pause(header: str | None) -> float:
    """Seconds of a `Retry-After`; 0 where it has none, or a date."""
    try:
        return min(max(float(header or 0), 0.0), LONGEST_PAUSE)
    except ValueError:
        return 0.0


def short(text: str, longest: int = 120) -> str:
    """The text on one line, cut, without the key."""
    key = api_key()
    line = " ".join((text.replace(key, "[key]") if key else text).split())
    return line if len(line) <= longest else f"{line[:longest]}..."


def api_key() -> str:
    """The key, "" where none is set. Raises `InputError` for one that no header can hold."""
    for name in KEY_NAMES:
        key = os.environ.get(name, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise InputError(f"{name} in the environment holds a character that no key has")
        if key:
            return key
    return ""

"""What orbax and tensorstore print of a full disk, some hundred lines, besides raising it."""

import logging
import sys

from hen_jax.core.errors import told

_LOGGERS = ("absl", "asyncio")
_before = [sys.unraisablehook]


def hush() -> None:
    """From now on such errors are only raised; other messages and tracebacks come as before.

    For the life of the process: much of it is printed late, when it ends.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_news)  # the same filter is added only once
    if sys.unraisablehook is not _hook:
        _before[:] = [sys.unraisablehook]
        sys.unraisablehook = _hook


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return error is None or told(error) is None


def _hook(ignored: "sys.UnraisableHookArgs") -> None:
    """tensorstore's threads go on with the writes of a checkpoint that was given up."""
    error = ignored.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        _before[0](ignored)

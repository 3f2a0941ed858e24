"""What orbax and tensorstore print of a full disk, though they raise it, too: some hundred lines."""

import logging
import sys
from types import TracebackType

from hen_jax.core.errors import told

_LOGGERS = ("absl", "asyncio")


def hush() -> None:
    """From now on such errors are only raised; other messages and tracebacks come as before.

    For the life of the process: much of it is printed late, when it ends.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_news)  # the same filter is added only once
    if sys.excepthook is not _hook:
        _before[:] = [sys.excepthook]
        sys.excepthook = _hook


_before = [sys.excepthook]


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return error is None or told(error) is None


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """tensorstore's threads go on with the writes of a checkpoint that was given up."""
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        _before[0](kind, error, trace)

"""What bad input raises, what ends a run that can go on, and how each is told."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

STOPPED = 75
"""Exit code of a run that was asked to stop and saved a checkpoint (EX_TEMPFAIL: try again)."""

LOST = 76
"""Exit code of a process that cannot go on because another one died or hangs."""


class InputError(ValueError):
    """Input the user can mend: a file, a line, a field, a flag.

    The message names the offender (file, line, field) and the remedy. The command line prints it
    on one line, without a traceback, and exits with code 2.
    """


class StoppedError(RuntimeError):
    """A run that was asked to stop: its checkpoint is saved, and the same command takes it up.

    The command line prints it on one line and exits with code `STOPPED`.
    """


class StoppedEarlyError(KeyboardInterrupt):
    """A run that was asked to stop when it had nothing to save, perhaps on one process first.

    Raised by a signal wherever the program is: like `KeyboardInterrupt`, it is none that a library
    catches and forgets.
    """

    def __init__(self) -> None:
        super().__init__(
            "stopped while no step was under way; the same command begins again, or goes on from "
            "the last checkpoint"
        )


class LostError(RuntimeError):
    """Another process of the run did not come, or is gone; the same command tries again.

    The command line prints it on one line and exits with code `LOST`.
    """


class CommandEnd(NamedTuple):
    """How the command ends: exit code, and one line for the user."""

    code: int
    line: str


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXT = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NO_BACKEND = re.compile(r"Unable to initialize backend '(\w*)': (.*)")
_QUOTED_PATH = re.compile(r"""["'](/[^"']+)["']""")


def told(error: BaseException) -> CommandEnd | None:
    """How an error that is no defect of ours is told; None for a defect, which needs a traceback.

    Bad input, devices that are not there, a disk that is full and Ctrl-C end with code 2. A full
    disk is found in whatever a library made of it: `RuntimeError("... [OS error 28: No space left
    on device]")`, too.
    """
    if isinstance(error, InputError):
        return CommandEnd(2, printable(str(error)))
    if isinstance(error, StoppedError | StoppedEarlyError):
        return CommandEnd(STOPPED, str(error))
    if isinstance(error, LostError):
        return CommandEnd(LOST, str(error))
    if isinstance(error, KeyboardInterrupt):
        return CommandEnd(2, "interrupted; what was whole before still is")
    full = next(filter(None, map(_full_disk, _causes(error))), None)
    if full is not None:
        return CommandEnd(2, f"{full}: the disk is full; free some space and give the same command")
    absent = next(filter(None, map(_no_devices, _causes(error))), None)
    if absent is not None:
        return CommandEnd(
            2, f"{absent}; unset JAX_PLATFORMS or set it to cpu, and see `hen doctor`"
        )
    if isinstance(error, OSError):
        # A missing right is the user's to mend; what was whole before still is.
        return CommandEnd(2, f"{error.filename or 'writing'}: {error.strerror or error}")
    return None


def printable(text: str) -> str:
    """The text with what a terminal would obey as escapes: a file's words may stand in it."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def _full_disk(error: BaseException) -> str | None:
    """The file that a full disk could not take, if that is what `error` says."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return str(error.filename or "writing")
    if not _FULL_TEXT.search(str(error)):
        return None
    named = _QUOTED_PATH.search(str(error))
    return named[1] if named else "writing"


def _no_devices(error: BaseException) -> str | None:
    """Which devices jax was to use and cannot, if that is what `error` says."""
    if isinstance(error, RuntimeError) and (found := _NO_BACKEND.search(str(error))):
        return f"jax has no device of the kind {found[1]!r}: {found[2]}"
    # jax 0.10 asserts that it found one, without a word, where a plug-in is not installed; its own
    # frames may be hidden, so it is asked again. Never loaded here: it was, or it is no such error.
    jax = sys.modules.get("jax")
    if isinstance(error, AssertionError) and jax is not None:
        try:
            jax.devices()
        except AssertionError:
            return f"jax has no device of the kind {os.environ.get('JAX_PLATFORMS', '')!r}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, those within it where it is a group, and those that led to it."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]

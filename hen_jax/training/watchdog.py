"""A run that hangs: ends it with a clear message and an exit code."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hen_jax.core.errors import LOST


@contextmanager
def watchdog(seconds: float, end: Callable[[int], None] = os._exit) -> Iterator[Callable[[], None]]:
    """Within, ends the process with code `LOST` after `seconds` without a call of what it yields.

    Prints where every thread stands first. 0 seconds: never.
    """
    last = [time.monotonic()]
    done = threading.Event()

    def alive() -> None:
        last[0] = time.monotonic()

    def watch() -> None:
        while not done.wait(min(seconds / 4, 5.0)):
            if time.monotonic() - last[0] > seconds:
                _report(seconds)
                end(LOST)
                return

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    if seconds > 0:
        thread.start()
    try:
        yield alive
    finally:
        done.set()


@contextmanager
def lost_after(
    seconds: float, message: str, end: Callable[[int], None] = os._exit
) -> Iterator[None]:
    """Within, for `seconds` at most: then the process ends with code `LOST` and one line."""

    def late() -> None:
        print(f"hen: {message}", file=sys.stderr, flush=True)
        end(LOST)

    timer = threading.Timer(seconds, late)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _report(seconds: float) -> None:
    print(
        f"hen: no step ended in {seconds:g} s (config.loop.stall_seconds): this process or "
        "another one hangs. Threads, newest call first:",
        file=sys.stderr,
    )
    faulthandler.dump_traceback(all_threads=True)
    print(
        "hen: ending; the same command goes on from the last checkpoint",
        file=sys.stderr,
        flush=True,
    )

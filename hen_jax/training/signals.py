"""Asking a run to stop: SIGTERM from a scheduler, Ctrl-C from a person."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

Asked = Callable[[int], bool]
"""`asked(step)`: is the run to stop after `step`? The same answer on every process."""


@contextmanager
def stop_requests() -> Iterator[Asked]:
    """Takes note of SIGTERM and SIGINT within, so that the step under way can end.

    The second signal acts as it always did. Among several processes, a signal to one of them asks
    all: jax's preemption service makes them agree on a step that none has passed yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # only the main thread may handle signals
    elif jax.process_count() > 1:
        # SIGTERM belongs to the preemption service, which Ctrl-C must reach too.
        before = signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        try:
            yield multihost_utils.reached_preemption_sync_point
        finally:
            signal.signal(signal.SIGINT, before)
    else:
        yield from _noted()


def _noted() -> Iterator[Asked]:
    received: list[int] = []
    handled = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in handled}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        restore()
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nStopping after this step; the checkpoint is saved then.\n")

    for number in handled:
        signal.signal(number, note)
    try:
        yield lambda step: bool(received)
    finally:
        restore()

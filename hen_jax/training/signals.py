"""Asking a run to stop: SIGTERM from a scheduler, Ctrl-C from a person.

Before the first step nothing is to be saved: the run ends at once. From then on the step under way
ends first, and is saved. Asked a second time, the run ends at once in any case.
"""

import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

from hen_jax.core.errors import STOPPED, StoppedEarlyError
from hen_jax.training.processes import ask_others, asked_by_others, leave

AskedToStop = Callable[[int], bool]
"""`asked(step)`: is the run to stop after `step`? The same answer on every process."""

GRACE_SECONDS = 12.0
"""How long an end may take until the process is ended from outside its main thread, which may be
in a compilation or a computation and then hears of no signal."""

POLL_SECONDS = 1.0

_HANDLED = (signal.SIGTERM, signal.SIGINT)


class _Listening:
    """The signals of this process, within `stop_early`: what came, and who must act on it."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.begun = False  # a step was dispatched: it is to be saved
        self.ended = threading.Event()
        self.before = {number: signal.getsignal(number) for number in _HANDLED}
        self.action = _native_action(signal.SIGTERM)
        self.lost = False  # what was raised did not reach the main program


_listening: list[_Listening] = []
"""The contexts of `stop_early`, the innermost last: signals belong to the whole process."""

_base_hook = [sys.unraisablehook]


@contextmanager
def stop_early(grace: float = GRACE_SECONDS, end: Callable[[int], None] = leave) -> Iterator[None]:
    """Within, SIGTERM or Ctrl-C raises `StoppedEarlyError`, on every process of the run.

    `stop_requests` takes over when the first step is on its way. A main thread that hears of no
    signal for `grace` seconds, as in a compilation, is ended with one line all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    here = _Listening()
    read, write = os.pipe()
    os.set_blocking(write, False)
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if not _listening:
        _base_hook[:] = [sys.unraisablehook]
        sys.unraisablehook = _note_lost
    for number in _HANDLED:
        signal.signal(number, _raise)
    _listening.append(here)
    thread = threading.Thread(target=_watch, args=(here, read, grace, end), daemon=True)
    thread.start()
    try:
        yield
    finally:
        here.ended.set()
        os.write(write, b"\0")  # wakes the thread
        _listening.remove(here)
        for number, handler in here.before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        _set_native_action(signal.SIGTERM, here.action)
        signal.set_wakeup_fd(wakeup)
        if not _listening and sys.unraisablehook is _note_lost:
            sys.unraisablehook = _base_hook[0]
        thread.join()
        os.close(read)
        os.close(write)


@contextmanager
def stop_requests() -> Iterator[AskedToStop]:
    """Takes note of SIGTERM and SIGINT within, so that the step under way can end.

    Until the first call of what it yields the run ends at once (see `stop_early`). The second
    signal raises `KeyboardInterrupt`. Among several processes, a signal to one of them asks all:
    jax's preemption service makes them agree on a step that none has passed yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    with ExitStack() as stack:
        if not _listening:
            stack.enter_context(stop_early())
        here = _listening[-1]
        together = jax.process_count() > 1

        def asked(step: int) -> bool:
            if not here.begun:
                here.begun = True
                _take_note(here, together)
            return multihost_utils.reached_preemption_sync_point(step) if together else noted()

        def noted() -> bool:
            return bool(here.received)

        try:
            yield asked
        finally:
            here.begun = False
            for number in _HANDLED:
                signal.signal(number, _raise)


def _raise(number: int, _: FrameType | None) -> None:
    here = _listening[-1]
    here.received.append(number)
    if len(here.received) > 1:
        raise KeyboardInterrupt
    raise StoppedEarlyError


def _note_lost(ignored: "sys.UnraisableHookArgs") -> None:
    """What is raised within a callback of the garbage collector or a finalizer is lost there."""
    if _listening and isinstance(ignored.exc_value, StoppedEarlyError):
        _listening[-1].lost = True
    else:
        _base_hook[0](ignored)


def _take_note(here: _Listening, together: bool) -> None:
    """From now on a signal is noted; among several processes jax's preemption service does it."""

    def note(number: int, _: FrameType | None) -> None:
        here.received.append(number)
        if len(here.received) > 1:
            raise KeyboardInterrupt
        if together:  # SIGTERM belongs to the preemption service, which Ctrl-C must reach too
            os.kill(os.getpid(), signal.SIGTERM)
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nStopping after this step; the checkpoint is saved then.\n")

    signal.signal(signal.SIGINT, note)
    if together:
        _set_native_action(signal.SIGTERM, here.action)
    else:
        signal.signal(signal.SIGTERM, note)


def _watch(here: _Listening, read: int, grace: float, end: Callable[[int], None]) -> None:
    """Hears of signals as they come, whatever the main thread does, and of those of others."""
    heard = 0
    while not here.ended.is_set():
        came = _signals(read, POLL_SECONDS)
        heard += came
        if _listening[-1:] != [here]:
            continue
        if came and (heard > 1 or not here.begun):
            if not here.begun:
                ask_others()
            again = _let_end(here, grace)
            if here.ended.is_set():
                return
            twice = heard + _signals(read, 0.0) - again > 1
            print(f"hen: {_TWICE if twice else StoppedEarlyError()}", file=sys.stderr, flush=True)
            end(2 if twice else STOPPED)
            return
        if not here.begun and heard == 0 and asked_by_others():
            os.kill(os.getpid(), signal.SIGTERM)


def _let_end(here: _Listening, grace: float) -> int:
    """Waits for the main thread to end; how often it had to be told anew."""
    deadline, again = time.monotonic() + grace, 0
    while time.monotonic() < deadline and not here.ended.wait(min(grace, 0.2)):
        if here.lost:
            here.lost, again = False, again + 1
            here.received.clear()
            os.kill(os.getpid(), signal.SIGTERM)
    return again


_TWICE = "interrupted twice; the last checkpoint that was whole still is"


def _signals(read: int, seconds: float) -> int:
    """How many of the handled signals came; waits so many seconds for one."""
    ready, _, _ = select.select([read], [], [], seconds)
    return sum(number in _HANDLED for number in os.read(read, 64)) if ready else 0


def _native_action(number: int) -> ctypes.Array[ctypes.c_char]:
    """What the C library does on a signal; jax sets this for SIGTERM, unseen by Python."""
    action = ctypes.create_string_buffer(512)  # a `struct sigaction` has some 150 bytes
    ctypes.CDLL(None).sigaction(int(number), None, action)
    return action


def _set_native_action(number: int, action: ctypes.Array[ctypes.c_char]) -> None:
    ctypes.CDLL(None).sigaction(int(number), action, None)

"""The engine's thread when the engine breaks: everybody who waits is told, and it can be ended."""

import threading
from collections import deque

import pytest

from hen_jax.sampling.engine import Engine
from hen_jax.sampling.requests import Request
from hen_jax.serving.worker import Worker

SOON = 10
"""Seconds in which a thread does what it is to do."""


def engine(waiting: tuple = ()) -> Engine:
    """One without a model, busy if anything waits."""
    made = object.__new__(Engine)
    made.writing, made.waiting = {}, deque(waiting)
    return made


def test_a_call_that_breaks_leaves_nobody_waiting(capsys):
    begun, go, told, broken = threading.Event(), threading.Event(), [], engine()
    broken.submit = lambda request: 1 / 0
    worker = Worker(broken, lambda request, experts: request)

    def hold(_: Engine) -> None:
        begun.set()
        assert go.wait(SOON)

    held = worker.call(hold)
    assert begun.wait(SOON)
    worker.submit(Request((1,)), {}, told.append)  # breaks the engine
    later = worker.call(lambda engine: "as if nothing had been")
    go.set()
    held.result(SOON)
    with pytest.raises(Exception, match="the engine ended by a defect"):
        later.result(SOON)
    assert len(told) == 1
    assert isinstance(told[0], Exception)
    assert worker.failed
    worker.stop()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_step_that_breaks_while_the_thread_is_told_to_end_ends_it(capsys):
    stepping, go, busy = threading.Event(), threading.Event(), engine(waiting=(1,))

    def step() -> list:
        stepping.set()
        assert go.wait(SOON)
        raise ZeroDivisionError

    busy.step = step
    worker = Worker(busy, lambda request, experts: request)
    worker.call(lambda engine: None)
    assert stepping.wait(SOON)
    ending = threading.Thread(target=worker.stop, daemon=True)
    ending.start()
    go.set()
    ending.join(SOON)
    assert not ending.is_alive()
    assert "ZeroDivisionError" in capsys.readouterr().err

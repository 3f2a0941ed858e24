"""The thread that owns an engine: requests go in from any thread, what becomes of them comes out.

All that touches the engine is a call that this thread makes between two steps, in the order in
which it was asked for.
"""

import itertools
import queue
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import TypeVar

from hen_jax.sampling.engine import Engine
from hen_jax.sampling.requests import Event, Request
from hen_jax.serving.refusals import broken

_T = TypeVar("_T")

_Tell = Callable[[Event | Exception], None]
"""What an event of a request is given to, on the worker's thread; an exception is the last."""


class Worker:
    """Runs the engine until it is stopped. A defect ends it; everybody who waits is told.

    Args:
      prepared: `(request, experts)` -> the request with the adapters of those experts, by name and
        weight, as they are now. Raises `InputError`.
    """

    def __init__(self, engine: Engine, prepared: Callable[[Request, Mapping[str, float]], Request]):
        self.engine, self._prepared = engine, prepared
        self.failed = False
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._tickets = itertools.count()
        self._numbers: dict[int, int] = {}  # of the engine, by ticket
        self._tells: dict[int, tuple[int, _Tell]] = {}  # the ticket and the listener, by number
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, experts: Mapping[str, float], tell: _Tell) -> int:
        """Asks for a reply, and returns a ticket to cancel it with."""
        ticket = next(self._tickets)

        def begin() -> None:
            try:
                number = self.engine.submit(self._prepared(request, experts))
            except ValueError as error:  # an expert that went meanwhile, say
                tell(error)
                return
            except Exception:
                tell(broken())
                raise
            self._numbers[ticket], self._tells[number] = number, (ticket, tell)

        self._enter(begin, lambda: tell(broken()))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Ends a request and frees its slot before the next step; nothing where it is done."""

        def end() -> None:
            number = self._numbers.pop(ticket, None)
            if number is not None:
                del self._tells[number]
                self.engine.cancel(number)

        self._enter(end, lambda: None)

    def call(self, function: Callable[[Engine], _T]) -> "Future[_T]":
        """Has the thread call `function(engine)` between two steps."""
        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(self.engine))
            except Exception as error:
                future.set_exception(error)

        self._enter(run, lambda: future.set_exception(broken()))
        return future

    def stop(self) -> None:
        """Ends the thread after the step under way; whoever still waits is told."""
        self._calls.put(None)
        self._thread.join()

    def _enter(self, call: Callable[[], None], instead: Callable[[], None]) -> None:
        self._calls.put(lambda: instead() if self.failed else call())

    def _run(self) -> None:
        going = True
        while going:
            try:
                going = self._turn()
            except Exception:
                # The state of the slots may be gone; nothing that is asked from now on is right.
                traceback.print_exc()
                self._give_up()
        self._give_up()
        while not self._calls.empty():
            if (call := self._calls.get()) is not None:
                call()

    def _turn(self) -> bool:
        """Makes the calls that wait, then a step; False to end."""
        for call in self._taken():
            if call is None:
                return False
            call()
        if not self.failed:
            for event in self.engine.step():
                self._deliver(event)
        return True

    def _taken(self) -> Iterator[Callable[[], None] | None]:
        """The calls that wait, one by one, so that one which raises leaves those behind it waiting;
        at least one where there is nothing else to do."""
        if self.failed or not self.engine.busy:
            yield self._calls.get()
        while not self._calls.empty():
            yield self._calls.get()

    def _deliver(self, event: Event) -> None:
        ticket, tell = self._tells[event.id]
        if event.completion is not None:
            del self._tells[event.id], self._numbers[ticket]
        tell(event)

    def _give_up(self) -> None:
        """Tells everybody who waits that nothing comes."""
        self.failed = True
        waiting, self._tells, self._numbers = self._tells, {}, {}
        for _, tell in waiting.values():
            tell(broken())

"""How many requests may be under way, and when to come again."""

import math
import time
from collections.abc import Callable

from hen_jax.serving.refusals import RefusedError, full

LONGEST_WAIT = 60
"""Seconds after which anybody may come again, however long replies take."""


class Admission:
    """Counts the rows that are answered or wait; used by one thread."""

    def __init__(self, rows: int, queue: int, clock: Callable[[], float] = time.monotonic):
        self.rows, self.room, self.clock = rows, rows + queue, clock
        self.inside = 0
        self._seconds = 1.0  # of a reply, a mean that forgets

    def enter(self, count: int) -> Callable[[], None]:
        """Lets in a request of so many rows; what it returns is to be called once it is over.

        Raises:
          RefusedError: 429 where the queue is too full for it, 400 where it always would be.
        """
        if count > self.room:
            raise RefusedError(
                f"{count} replies are asked for at once; at most {self.room} can wait", field="n"
            )
        if self.inside + count > self.room:
            ahead = self.inside / self.rows * self._seconds
            raise full(min(LONGEST_WAIT, max(1, math.ceil(ahead))))
        self.inside += count
        began = self.clock()

        def leave() -> None:
            self.inside -= count
            self._seconds = 0.9 * self._seconds + 0.1 * (self.clock() - began)

        return leave

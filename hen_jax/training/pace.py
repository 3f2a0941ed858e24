"""How fast a run goes: seconds per update, tokens per second, model FLOPs utilisation, memory."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from hen_jax.planning.roofline import utilisation
from hen_jax.planning.topologies import chip_of

PACE_STEPS = 10
"""Updates that a rate is the mean of."""

Clock = Callable[[], float]


class Rates(NamedTuple):
    """Means over the last `PACE_STEPS` updates."""

    seconds_per_update: float
    tokens_per_second: float


class Pace:
    """The clock of the updates; evaluations, checkpoints and compilations do not count.

    An update lasts from the end of the one before to its own end. When a call only dispatches, its
    end is seen when its metrics are there, after the next was dispatched; the rates are means over
    `PACE_STEPS` updates, since such moments may fall together.
    """

    def __init__(self, now: Clock = time.perf_counter):
        self._now = now
        self._last, self._paused = now(), 0.0
        self._recent: deque[tuple[float, int]] = deque(maxlen=PACE_STEPS)

    def now(self) -> float:
        """The moment, in seconds."""
        return self._now()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens within is no part of an update."""
        start = self._now()
        try:
            yield
        finally:
            self.leave_out(self._now() - start)

    def leave_out(self, seconds: float) -> None:
        """Leaves out seconds of the update under way that the caller has measured."""
        self._paused += seconds

    def ended(self, moment: float, tokens: int, *, usual: bool = True) -> float:
        """How many seconds the update took that ended at `moment`, over `tokens` tokens.

        Not usual: it was compiled first, and says nothing of those to come.
        """
        seconds = max(0.0, moment - self._last - self._paused)
        self._last, self._paused = moment, 0.0
        if usual:
            self._recent.append((seconds, tokens))
        return seconds

    def rates(self) -> Rates | None:
        """The rates by now; None before there was a usual update.

        Two updates of 100 tokens that took 1 s and 3 s: `Rates(2.0, 50.0)`.
        """
        total = sum(seconds for seconds, _ in self._recent)
        if total <= 0.0:
            return None
        return Rates(total / len(self._recent), sum(count for _, count in self._recent) / total)


def run_mfu(flops: float, seconds: float) -> float | None:
    """Model FLOPs utilisation of a step of `seconds` over all devices of the run.

    `flops` are those that the model needs in one step, on all chips together. None where they or
    the peak of the chips are not known, as on a CPU.
    """
    chip = chip_of(jax.devices()[0].device_kind)
    if chip is None or flops <= 0 or seconds <= 0:
        return None
    return utilisation(flops, seconds, chip.flops, jax.device_count())


class DeviceMemory(NamedTuple):
    """Of the fullest device of this process, in bytes."""

    peak: int  # most in use since the process began
    limit: int


def device_memory() -> DeviceMemory | None:
    """What the devices of this process hold; None where they do not tell, as on a CPU."""
    told = [device.memory_stats() or {} for device in jax.local_devices()]
    used = [
        DeviceMemory(one["peak_bytes_in_use"], one.get("bytes_limit", 0))
        for one in told
        if "peak_bytes_in_use" in one
    ]
    return max(used) if used else None

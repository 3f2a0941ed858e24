"""Red flags: numbers of a run that a person would not let pass, named, told, or the end of it."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, check_ranges


class Flag(NamedTuple):
    """One that is up."""

    text: str  # one line: which metric, its value, the limit
    stops: bool  # the run ends, with its state saved


Flags = Callable[[int, Mapping[str, float]], list[Flag]]
"""`flags(step, values)`: what an update's metrics give cause for."""


def no_flags(step: int, values: Mapping[str, float]) -> list[Flag]:
    """Nothing is watched."""
    return []


@dataclasses.dataclass(frozen=True)
class RedFlag:
    """A limit on a metric of the log.

    Raises:
      InputError: no limit at all.
    """

    metric: str  # a name in the lines of metrics.jsonl
    above: float | None = None  # up where the metric is larger
    below: float | None = None  # up where it is smaller
    updates: Count = 1  # so many in a row
    stop: bool = False  # end the run, its state saved; False: tell it

    def __post_init__(self):
        check_ranges(self)
        if self.above is None and self.below is None:
            raise InputError(f"the red flag on {self.metric!r} has no limit; give above or below")

    def wrong(self, value: float) -> str | None:
        """What is wrong with a value; None: nothing. NaN is wrong under any limit."""
        if self.above is not None and not value <= self.above:
            return f"above {self.above:g}"
        if self.below is not None and not value >= self.below:
            return f"below {self.below:g}"
        return None


def watchful(flags: Sequence[RedFlag]) -> Flags:
    """Watches these metrics; a flag is told when it goes up, and again after as many updates.

    A metric that a line does not hold is not looked at.
    """
    in_row = [0] * len(flags)

    def look(step: int, values: Mapping[str, float]) -> list[Flag]:
        found = []
        for place, flag in enumerate(flags):
            value = values.get(flag.metric)
            what = None if value is None else flag.wrong(value)
            in_row[place] = in_row[place] + 1 if what else 0
            if what and in_row[place] % flag.updates == 0:
                found.append(Flag(_line(flag, value, what), flag.stop))
        return found

    return look


def _line(flag: RedFlag, value: float | None, what: str) -> str:
    shown = "not a number" if value is None or math.isnan(value) else f"{value:.4g}"
    times = f" for {flag.updates} updates" if flag.updates > 1 else ""
    return f"red flag: {flag.metric} is {shown}, {what}{times}"

"""Numbers that a setting may have, and the one line that refuses others."""

import math
from typing import NamedTuple

from hen_jax.core.errors import InputError


class Range(NamedTuple):
    """The numbers from `low` to `high`; NaN and infinity are in no range."""

    low: float
    high: float = math.inf
    above: bool = False  # `low` itself is not allowed

    def __str__(self) -> str:
        start = f"more than {self.low:g}" if self.above else f"{self.low:g} or more"
        return start if self.high == math.inf else f"{start}, at most {self.high:.8g}"


def require_in(name: str, value: float, allowed: Range) -> None:
    """Raises `InputError` unless `value` lies in `allowed`.

    `require_in("warmup", 2.0, Range(0, 1))` says `warmup is 2.0; allowed: 0 or more, at most 1`.
    """
    inside = allowed.low <= value <= allowed.high and math.isfinite(value)
    if not inside or (allowed.above and value == allowed.low):
        raise InputError(f"{name} is {value!r}; allowed: {allowed}")

"""Which numbers a field of settings allows, written once, in the field's type."""

import dataclasses
import math
import sys
import typing
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from hen_jax.core.errors import InputError


class Range(NamedTuple):
    """The numbers from `low` to `high`; NaN and infinity are in no range."""

    low: int | float = -math.inf
    high: int | float = math.inf
    above: bool = False  # `low` itself is not allowed
    below: bool = False  # `high` itself is not allowed
    also: int | float | None = None  # one more number, outside

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            return False
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        return (low and high) or value == self.also

    def __str__(self) -> str:
        """As a person says it: "1 or more", "0 or more, at most 1", "-1, or 1 or more"."""
        said = []
        if self.low != -math.inf:
            said.append(f"more than {self.low:g}" if self.above else f"{self.low:g} or more")
        if self.high != math.inf:
            said.append(f"{'less than' if self.below else 'at most'} {self.high:.8g}")
        also = "" if self.also is None else f"{self.also:g}, or "
        return also + ", ".join(said)


def require_in(name: str, value: int | float, allowed: Range) -> None:
    """Raises `InputError` unless `value` lies in `allowed`.

    `require_in("warmup", 2.0, Range(0, 1))` says `warmup is 2.0; allowed: 0 or more, at most 1`.
    """
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed: {allowed}")


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
UpToOne = Annotated[float, Range(0, 1, above=True)]
BelowOne = Annotated[float, Range(0, 1, below=True)]
"""A rate of decay or a share that is never the whole."""


def check_ranges(record: Any) -> None:
    """Refuses a dataclass with a number outside the `Range` of its field; for `__post_init__`.

    `microbatches: Count` with 0 says "microbatches is 0; allowed: 1 or more".

    Raises:
      InputError: names the field, the number and what is allowed.
    """
    hints = typing.get_type_hints(type(record), include_extras=True)
    for field in dataclasses.fields(record):
        value = vars(record)[field.name]
        for allowed in ranges(hints[field.name]):
            if value is not None:
                require_in(field.name, value, allowed)


def ranges(hint: Any) -> Iterator[Range]:
    """The ranges in an annotation, those of an optional number included."""
    if typing.get_origin(hint) is Annotated:
        yield from (one for one in hint.__metadata__ if isinstance(one, Range))
        return
    if typing.get_origin(hint) is not tuple:  # a list's items have their own
        for argument in typing.get_args(hint):
            yield from ranges(argument)

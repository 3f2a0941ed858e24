"""Ratings on their questionnaires' scales, brought to [0, 1] so that they can be subtracted.

Desired empathy is asked on 1-3 and perceived empathy on 1-5: a gap between the two means nothing
before both are normalised.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scale:
    """A rating scale with its two end points."""

    name: str
    low: float
    high: float

    def to_unit(self, rating: float) -> float:
        """`rating` in [0, 1]: a 2 is 0.5 on `DESIRED` and 0.25 on `PERCEIVED`.

        Raises:
          ValueError: the rating is off the scale or not a number; readers of files check before.
        """
        if not self.low <= rating <= self.high:
            raise ValueError(
                f"{self.name} is {rating}; allowed: {self.low:g} to {self.high:g} "
                "(leave a missing rating out)"
            )
        return (rating - self.low) / (self.high - self.low)

    def from_unit(self, value: float) -> float:
        """The rating that `to_unit` maps to `value`."""
        return self.low + value * (self.high - self.low)


DESIRED = Scale("desired empathy", 1, 3)
PERCEIVED = Scale("perceived empathy", 1, 5)

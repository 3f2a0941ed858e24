"""Progress where no terminal shows a bar: a line now and then."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Tell = Callable[[int, Mapping[str, float]], None]
"""`tell(step, values)`: prints a line if one is due."""


class Place(NamedTuple):
    """Where a run stands among those that one command starts, such as a pipeline's."""

    title: str  # "[3/9 emcl]", before every line; "": it is the only one
    later: float = 0.0  # seconds that the later ones are expected to take


ALONE = Place("")


def progress(
    steps: int,
    every: int,
    say: Callable[[str], None],
    place: Place = ALONE,
    seconds: float = 30.0,
    now: Callable[[], float] = time.monotonic,
) -> Tell:
    """A line after the first update of the run, the last, every `every` ones and each 30 s."""
    last: list[float] = []

    def tell(step: int, values: Mapping[str, float]) -> None:
        if last and step < steps and step % every and now() - last[0] < seconds:
            return
        last[:] = [now()]
        say(progress_line(step, steps, values, place))

    return tell


def progress_line(step: int, steps: int, values: Mapping[str, float], place: Place = ALONE) -> str:
    """`step 40/120: loss 1.934, rate 1.0e-04, 3,512 tokens/s, 4 min left, ...`.

    Among several runs: `[3/9 emcl] step ..., 4 min left (11 min with what follows), ...`.

    `values` are the metrics of the update. Speed, device memory and MFU stand there where they are
    known: after an update that was compiled first, no speed is.
    """
    parts = [f"loss {values['loss']:.4g}", f"rate {values['learning_rate']:.3g}"]
    if "seconds_per_update" in values:
        left = (steps - step) * values["seconds_per_update"]
        whole = f" ({duration(left + place.later)} with what follows)" if place.title else ""
        parts += [
            f"{values['tokens_per_second']:,.0f} tokens/s",
            f"{duration(left)} left{whole}",
        ]
    if "device_memory_gb" in values:
        parts.append(f"device memory {values['device_memory_gb']:.1f} GB")
    if "mfu" in values:
        parts.append(f"MFU {100 * values['mfu']:.1f} %")
    return f"{place.title} step {step}/{steps}: {', '.join(parts)}".lstrip()


def duration(seconds: float) -> str:
    """For people: `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"

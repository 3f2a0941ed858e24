"""Progress where no terminal shows a bar: a line now and then."""

import time
from collections.abc import Callable, Mapping

Tell = Callable[[int, Mapping[str, float]], None]
"""`tell(step, values)`: prints a line if one is due."""


def progress(
    steps: int,
    every: int,
    say: Callable[[str], None],
    seconds: float = 30.0,
    now: Callable[[], float] = time.monotonic,
) -> Tell:
    """A line after the first update of the run, the last, every `every` ones and each 30 s."""
    last: list[float] = []

    def tell(step: int, values: Mapping[str, float]) -> None:
        if last and step < steps and step % every and now() - last[0] < seconds:
            return
        last[:] = [now()]
        say(progress_line(step, steps, values))

    return tell


def progress_line(step: int, steps: int, values: Mapping[str, float]) -> str:
    """`step 40/120: loss 1.934, rate 1.0e-04, 3,512 tokens/s, 4 min left, ...`.

    `values` are the metrics of the update; device memory and MFU stand there where they are known.
    """
    parts = [
        f"loss {values['loss']:.4g}",
        f"rate {values['learning_rate']:.3g}",
        f"{values['tokens_per_second']:,.0f} tokens/s",
        f"{duration((steps - step) * values['seconds_per_update'])} left",
    ]
    if "device_memory_gb" in values:
        parts.append(f"device memory {values['device_memory_gb']:.1f} GB")
    if "mfu" in values:
        parts.append(f"MFU {100 * values['mfu']:.1f} %")
    return f"step {step}/{steps}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """For people: `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"

"""The alarm for a step that is compiled again: it costs minutes, and mostly nobody meant it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

EVENT = "/jax/core/compile/backend_compile_duration"
BEFORE = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)
"""What comes before it, and takes seconds too."""


class Compilations(NamedTuple):
    """How often a function was compiled (or read from the cache), and how long that took."""

    count: int
    seconds: float  # tracing included


@contextmanager
def compilations(name: str) -> Iterator[Callable[[], Compilations]]:
    """Within, counts compilations (or reads from the cache) of the jitted function `name`.

    The second and every later one is told at once, on the error stream.
    """
    seconds: list[float] = []
    before: list[float] = []

    def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if kwargs.get("fun_name") not in (name, f"jit({name})"):
            return
        if event in BEFORE:
            before.append(duration_secs)
        if event != EVENT:
            return
        seconds.append(duration_secs)
        if len(seconds) > 1:
            print(
                f"WARNING: {name} was compiled again, in {duration_secs:.1f} s ({len(seconds)} "
                "times now): a shape, dtype or sharding of what it is given has changed; "
                "JAX_EXPLAIN_CACHE_MISSES=1 says which",
                file=sys.stderr,
            )

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield lambda: Compilations(len(seconds), sum(before) + sum(seconds))
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)

"""The alarm for a step that is compiled again: it costs minutes, and mostly nobody meant it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

EVENT = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compilations(name: str) -> Iterator[Callable[[], int]]:
    """Within, counts compilations (or reads from the cache) of the jitted function `name`.

    The second and every later one is told at once, on the error stream.
    """
    seconds: list[float] = []

    def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event != EVENT or kwargs.get("fun_name") != f"jit({name})":
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
        yield lambda: len(seconds)
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)

"""A profiler's trace of a few updates: `hen run --profile`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from hen_jax.core.types import Tree
from hen_jax.training.processes import is_primary

_FOLDER = "profile"
"""In the work directory; TensorBoard's profile plugin and ui.perfetto.dev show what lies there."""

LEFT_OUT = 2
"""Updates before the first that is traced: the first one compiles, the second fills the pipeline.
"""

Look = Callable[[int, Tree], None]
"""`look(done, state)`, before each update: how many were done, and the state they left."""


@contextmanager
def profiler(folder: Path, start: int, updates: int) -> Iterator[Look]:
    """Traces `updates` updates of a run that goes on from update `start`; none if that is 0.

    The first process writes. Where the run ends meanwhile, what was traced until then is kept.
    """
    first = start + LEFT_OUT
    tracing = False

    def look(done: int, state: Tree) -> None:
        nonlocal tracing
        if done == first and updates and is_primary():
            jax.block_until_ready(state)
            jax.profiler.start_trace(folder / _FOLDER)
            tracing = True
        elif tracing and done == first + updates:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            tracing = False

    try:
        yield look
    finally:
        if tracing:
            jax.profiler.stop_trace()

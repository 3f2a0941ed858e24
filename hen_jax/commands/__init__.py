"""The verbs of `hen`, a file each: `add` has a verb's flags, and what it needs loads in the call.

A new verb is a file here with `add(verbs)`, and a line in `VERBS`.
"""

from collections.abc import Callable
from typing import Any

from hen_jax.commands import (
    chat,
    config,
    data,
    doctor,
    export,
    generate,
    import_,
    judge,
    plan,
    route,
    run,
    score,
    show,
    synthesize,
)

VERBS: tuple[Callable[[Any], None], ...] = (
    run.add,
    config.add,
    plan.add,
    show.add,
    import_.add,
    generate.add,
    chat.add,
    score.add,
    route.add,
    export.add,
    judge.add,
    synthesize.add,
    doctor.add,
    data.add,
)
"""In the order of `hen --help`."""

"""The verbs of `hen`, a file each: `add` has a verb's flags, and what it needs loads in the call.

A new verb is a file here with `add(verbs)`, and a line in `VERBS`.
"""

from collections.abc import Callable
from typing import Any

from hen_jax.commands import (
    ablate,
    bench,
    build,
    chat,
    compare,
    config,
    data,
    doctor,
    evaluate,
    export,
    generate,
    identify,
    import_,
    judge,
    plan,
    prompt,
    rate,
    report,
    route,
    run,
    score,
    serve,
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
    serve.add,
    prompt.add,
    compare.add,
    ablate.add,
    build.add,
    identify.add,
    score.add,
    route.add,
    export.add,
    judge.add,
    bench.add,
    rate.add,
    evaluate.add,
    report.add,
    synthesize.add,
    doctor.add,
    data.add,
)
"""In the order of `hen --help`."""

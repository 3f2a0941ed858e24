"""What replies cost: seconds, tokens, tokens by second of all at once, peak memory.

A model of ours is measured in a process of its own; an endpoint one request at a time, its memory
unknown. The first reply, which compiles or warms up, is told apart.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hen_jax.evaluation.suite import Better, Found, Measured, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash

_MOST = 16
"""Items at most."""


def _run(context: SuiteContext) -> Iterable[Found]:
    step = max(1, len(context.items) // _MOST)
    items = list(context.items[::step][:_MOST])
    found: Mapping[str, Any] = context.cost(items)
    ids, clusters = [item.id for item in items], [item.cluster for item in items]
    seconds, tokens = np.asarray(found["seconds"]), np.asarray(found["tokens"], float)
    hashed = prompts_hash([item.prompt for item in items])

    def one(measure: str, values: np.ndarray, about: str, figure=None) -> Observed:
        better: Better = "higher" if measure == "tokens_per_second" else "lower"
        given: dict[str, Any] = {"better": better, "prompt_hash": hashed, "about": about}
        return Observed(measure, "all", ids, clusters, values, figure, **given)

    yield one("seconds", seconds, "of a reply, one after another, after the first")
    yield one("tokens", tokens, "of a reply, its end included")._replace(better="")
    rate = np.stack([tokens, seconds], axis=1)
    yield one("tokens_per_second", rate, "one after another", lambda s: s[..., 0] / s[..., 1])
    once: tuple[tuple[str, Better, str], ...] = (
        ("first_seconds", "lower", "of the first reply: opening, compilation"),
        ("together_tokens_per_second", "higher", "all at once, compiled before"),
        ("peak_host_mib", "lower", "largest resident set of the process"),
        ("peak_device_mib", "lower", "of the accelerator's memory"),
    )
    for measure, better, about in once:
        if found.get(measure) is not None:
            yield Measured("", "", measure, "all", float(found[measure]), None, None, len(items),
                           len(set(clusters)), 0, better, about=about)  # fmt: skip


SUITE = Suite(_run, "seconds, tokens and peak memory of replies", alone=True)

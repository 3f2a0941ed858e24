"""How likely the data's replies are under an arm: perplexity by token, and bits by character."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from hen_jax.evaluation.suite import Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import in_groups, prompts_hash


def perplexity(sums: np.ndarray) -> np.ndarray:
    """`exp` of the nats by token; of summed `(nats, tokens, characters)`."""
    return np.exp(-sums[..., 0] / sums[..., 1])


def bits_per_character(sums: np.ndarray) -> np.ndarray:
    """Of the same sums; does not depend on how a tokenizer cuts."""
    return -sums[..., 0] / np.log(2) / sums[..., 2]


def _run(context: SuiteContext) -> Iterable[Observed]:
    known = [item for item in context.items if item.reference]
    asked = [(item.prompt, (item.reference or "",)) for item in known]
    scored = {item.id: one for item, one in zip(known, context.log_probs(asked), strict=True)}
    rows = []
    for item in context.items:
        row = [np.nan] * 3
        if item.id in scored and item.reference:
            found = scored[item.id]
            row = [found.sums[0], found.tokens[0], len(item.reference)]
        rows.append(row)
    ids, clusters = [item.id for item in context.items], [item.cluster for item in context.items]
    hashed = prompts_hash([item.prompt for item in context.items])
    for measure, figure, about in (
        ("perplexity", perplexity, "by token: compare arms of one tokenizer"),
        ("bits_per_character", bits_per_character, "of the reply, its end of turn counted in"),
    ):
        given: dict[str, Any] = {"better": "lower", "prompt_hash": hashed, "about": about}
        whole = Observed(measure, "all", ids, clusters, np.asarray(rows, float), figure, **given)
        yield from in_groups(whole, context.items)


SUITE = Suite(_run, "perplexity and bits by character of the data's replies", by_group=False)

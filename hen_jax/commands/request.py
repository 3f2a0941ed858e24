"""From the flags of a speaker to a request."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hen_jax.verbs.generate.generate import GenerateRequest


def request_of(chosen: argparse.Namespace) -> "GenerateRequest":
    """Who answers, and how."""
    from hen_jax.verbs.generate.generate import GenerateRequest

    return GenerateRequest(
        model=chosen.model,
        backend=chosen.backend,
        adapter=chosen.adapter,
        system=chosen.system,
        max_new_tokens=chosen.max_new_tokens,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        stop=tuple(chosen.stop),
        seed=chosen.seed,
        dtype=chosen.dtype,
        at_once=chosen.at_once,
        per_minute=chosen.per_minute,
        timeout=chosen.timeout,
        tries=chosen.tries,
    )

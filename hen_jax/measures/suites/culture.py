"""High-context score and formality of replies as a suite, by language, on the items of the data."""

from collections.abc import Iterator

import numpy as np

from hen_jax.empathy.labels import Language
from hen_jax.evaluation.suite import Found, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import in_groups, prompts_hash
from hen_jax.measures.fairness.culture import formality, high_context_parts, high_context_score


def _run(context: SuiteContext) -> Iterator[Found]:
    replies = [reply.text for reply in context.replies(context.items)]
    languages: list[Language] = [item.language for item in context.items]
    spoken = list(zip(replies, languages, strict=True))
    values = {"high_context_score": [high_context_score(*one) for one in spoken]}
    parts = [high_context_parts(*one) for one in spoken]
    values |= {name: [row[name] for row in parts] for name in (parts[0] if parts else {})}
    formal = [formality(*one) for one in spoken]
    values["formality"] = [np.nan if one is None else one for one in formal]
    hashed = prompts_hash([item.prompt for item in context.items])
    for measure, own in values.items():
        ids, clusters = [x.id for x in context.items], [x.cluster for x in context.items]
        whole = Observed(
            measure, "all", ids, clusters, np.asarray(own, float), prompt_hash=hashed,
            about="from 0 to 1, by the wording",
        )  # fmt: skip
        yield from in_groups(whole, context.items)


SUITE = Suite(_run, "how high-context and how formal replies are, by their wording, zh and en")

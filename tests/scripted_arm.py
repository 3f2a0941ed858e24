"""An arm of `hen evaluate` that answers by a function, and what a suite finds of it."""

from collections import Counter
from pathlib import Path

from hen_jax.evaluation.figures import Drawing, measured
from hen_jax.evaluation.suite import Measured, NotMeasuredError, SuiteContext
from hen_jax.text.conversation import Reply

ROOT = Path(__file__).parents[1]


def context(say=None, log_probs=None, items=(), **more) -> SuiteContext:
    """An arm that answers by `say(item)`, and has likelihoods if `log_probs` is given."""

    def none(asked):
        raise NotMeasuredError("no likelihoods")

    def replies(asked):
        assert len({one.id for one in asked}) == len(asked)
        return [Reply(say(one) if say else "") for one in asked]

    return SuiteContext(
        arm="a", first="a", items=items, replies=replies,
        replies_of=lambda name, asked: replies(asked), log_probs=log_probs or none,
        once=lambda name, work: work(), cost=lambda asked: {}, **more,
    )  # fmt: skip


def figures(suite, given: SuiteContext) -> dict[tuple[str, str], Measured]:
    found = [measured("s", "a", one, Drawing(draws=50)) for one in suite.SUITE.run(given)]
    keys = [(one.measure, one.group) for one in found]
    assert len(keys) == len(set(keys)), Counter(keys).most_common(1)
    return dict(zip(keys, found, strict=True))

"""EmotionBench as a suite: `--option questionnaires=FILE --option situations=FILE` and, if wanted,
`--option scale=PANAS`; or `--option results=FILE`, a result CSV, whose figures are given."""

from collections.abc import Iterator, Sequence

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Measured, Suite, SuiteContext
from hen_jax.measures.benchmarks.emotionbench import Administration, Questionnaire, complete, shifts
from hen_jax.measures.benchmarks.emotionbench_files import (
    administer_situations,
    read_questionnaires,
    read_results,
    read_situations,
    situation_keys,
)
from hen_jax.measures.suites.asking import arm_chat
from hen_jax.measures.suites.options import one_file


def _run(context: SuiteContext) -> Iterator[Found]:
    file = one_file(context, "questionnaires", "EmotionBench's questionnaires.json")
    scales, name = read_questionnaires(file), context.options.get("scale", "PANAS")
    if name not in scales:
        raise InputError(f"--option scale={name}; allowed: {', '.join(scales)}")
    if "results" in context.options:
        recorded = one_file(context, "results", "a result CSV of EmotionBench")
        fillings = read_results(recorded)
    else:
        places = one_file(context, "situations", "EmotionBench's situations.json")
        keys = situation_keys(read_situations(places))
        count = min(context.limit or len(keys), len(keys))
        keys = [keys[at * len(keys) // count] for at in range(count)]
        fillings = administer_situations(
            scales[name], keys, arm_chat(context, name), seed=context.seed
        )
    yield from _lines(scales[name], fillings)


def _lines(scale: Questionnaire, fillings: Sequence[Administration]) -> Iterator[Measured]:
    """The shifts of all emotions and of each, with the p value of the published test."""
    gaps = sum(not complete(scale, one) for one in fillings)
    for emotion, categories in shifts(scale, fillings).items():
        for category, one in categories.items():
            about = f"{one.change}; default {one.default:.1f}" + ("; Welch" if one.welch else "")
            count = one.n_evoked
            group = f"{emotion}/{category}"
            p = one.p if one.p == one.p else None
            yield Measured("", "", f"{scale.name}_shift", group, one.delta, None, None, count,
                           count, gaps, p=p, about=about)  # fmt: skip


SUITE = Suite(
    _run,
    "EmotionBench: how far situations move what a model says it feels",
    options=("questionnaires", "situations", "results", "scale"),
)

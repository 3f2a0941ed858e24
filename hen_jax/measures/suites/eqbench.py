"""EQ-Bench v2 as a suite: `--option eqbench=eq_bench_v2_questions_171.json`."""

from collections.abc import Iterator

import numpy as np

from hen_jax.evaluation.suite import Found, Measured, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.measures.benchmarks.eqbench import (
    EqQuestion,
    constant_score,
    eqbench_score,
    question_score,
    read_answer,
    read_eqbench,
)
from hen_jax.measures.suites.asking import said
from hen_jax.measures.suites.options import one_file


def _run(context: SuiteContext) -> Iterator[Found]:
    file = one_file(context, "eqbench", "eq_bench_v2_questions_171.json")
    questions = read_eqbench(file)
    questions = questions[: context.limit] if context.limit else questions
    replies = said(context, [f"eq/{x.id}" for x in questions], [x.messages for x in questions])
    answers = [
        read_answer(reply.text, list(question.reference))
        for question, reply in zip(questions, replies, strict=True)
    ]
    for side, name in enumerate(("first", "revised")):
        values = [
            10 * question_score(question.reference, given) if (given := answer[side]) else np.nan
            for question, answer in zip(questions, answers, strict=True)
        ]
        yield _observed(f"{name}_pass", questions, values, "100 is the reference; unread left out")
    found = eqbench_score(questions, answers)
    about = f"better pass; {found.parsed_first} and {found.parsed_revised} read"
    yield _plain("eqbench_v2", found.score, len(questions), about)
    yield _plain("lm_eval_variant", found.lm_eval, len(questions), "first pass, unread counts 0")
    if context.arm == context.first:
        fives = constant_score(questions, 5)
        yield _plain("control_all_5", fives, len(questions), "answering 5 everywhere")


def _observed(measure: str, questions: list[EqQuestion], values: list[float], about: str):
    ids = [question.id for question in questions]
    hashed = prompts_hash([question.messages for question in questions])
    return Observed(
        measure, "en", ids, ids, np.asarray(values, float), better="higher", prompt_hash=hashed,
        about=about,
    )  # fmt: skip


def _plain(measure: str, value: float | None, count: int, about: str) -> Measured:
    return Measured("", "", measure, "en", value, None, None, count, count, 0, about=about)


SUITE = Suite(
    _run, "EQ-Bench v2: intensities of four emotions, first and revised", options=("eqbench",)
)

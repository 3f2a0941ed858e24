"""EmoBench as a suite: `--option emobench=FILE[,FILE]`, the official JSON lines."""

from collections.abc import Iterator

from hen_jax.evaluation.suite import Found, Suite, SuiteContext
from hen_jax.measures.benchmarks.emobench import read_emobench
from hen_jax.measures.suites.asking import accuracies, choose, file_options, spread


def _run(context: SuiteContext) -> Iterator[Found]:
    files = file_options(context, "emobench", "emobench_eu.jsonl, emobench_ea.jsonl or both")
    items = spread([item for file in files for item in read_emobench(file)], context)
    way, choices = choose(context, items)
    yield from accuracies(choices, way, lambda one: f"{one.item.language}/{one.item.aspect}")


SUITE = Suite(_run, "EmoBench: emotions, causes and best actions, zh and en")

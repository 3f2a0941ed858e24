"""`hen evaluate`: suites of measures over one or more arms, with intervals and paired differences.

A folder of results holds `results.json` (every figure), `table.md` (the same to read), and
`samples.jsonl` (each arm's replies as conversations called ARM/ID, for `hen data ratings`); the
journals `calls.jsonl` and `values.jsonl` let the same command go on where it was stopped.
"""

import dataclasses
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.checksums import file_sha256
from hen_jax.core.files import write_json
from hen_jax.core.journal import open_journal
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.evaluation.figures import Drawing, differences, measured
from hen_jax.evaluation.suite import Found, Item, Measured, NotMeasuredError, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import prompts_hash
from hen_jax.runs.arms import REFERENCES, Arm, read_arms
from hen_jax.runs.evaluated import read_arm_items
from hen_jax.runs.sources import locate_source
from hen_jax.text.conversation import Reply, message_row
from hen_jax.verbs.evaluate.asking import CALLS, VALUES, Asking, open_kept
from hen_jax.verbs.evaluate.cost import measure_cost
from hen_jax.verbs.evaluate.inspect_logs import now, write_logs
from hen_jax.verbs.evaluate.settings import Evaluating
from hen_jax.verbs.evaluate.suites import suites_named
from hen_jax.verbs.evaluate.table import evaluate_table

RESULTS, TABLE, SAMPLES = "results.json", "table.md", "samples.jsonl"
_SHOWN = 3
"""Items whose replies the table shows side by side."""


class SuiteFigures(NamedTuple):
    """What the suites found of each arm, and what they could not measure."""

    found: dict[str, dict[str, list[Found]]]  # by suite, by arm
    not_measured: list[dict[str, str]]


def evaluate(evaluating: Evaluating) -> dict[str, Any]:
    """Runs the suites, writes the results and prints the table.

    Raises:
      InputError: bad input, or an arm or judge that does not answer; what came is kept, and the
        same command goes on from there.
    """
    out = evaluating.out
    require_no_link(out)
    paths = [out / name for name in (RESULTS, TABLE, SAMPLES)]
    require_ours(*paths)
    arms = read_arms(evaluating.arm)
    suites = suites_named(evaluating.suite, evaluating.options)
    items = read_arm_items(
        evaluating.data, evaluating.schema, part=evaluating.part,
        languages=evaluating.languages, limit=evaluating.limit,
    )  # fmt: skip
    with (
        open_journal(out / "calls.jsonl", CALLS) as calls,
        open_journal(out / "values.jsonl", VALUES) as values,
    ):
        asking = Asking(evaluating, arms, items, open_kept(calls, values))
        contexts = {
            arm.name: _context(evaluating, arm, arms[0].name, items, asking) for arm in arms
        }
        evaluated = run_suites(suites, contexts)
        replies = {arm.name: asking.known_replies(arm.name, items) for arm in arms}
        created = asking.once(arms[0].name)("created", now)  # the same command, the same logs
    result = _result(evaluating, suites, items, asking, evaluated)
    result["samples"] = _shown(items, replies)
    table = evaluate_table(result)
    with output_files(*paths) as (results, page, samples):
        write_json(results, result)
        page.write_text(table, encoding="utf-8")
        samples.write_text("".join(_samples(items, replies)), encoding="utf-8")
    if evaluating.inspect is not None:
        write_logs(evaluating.inspect, result, items, replies, evaluated.found, created)
    print(table, end="")
    return result


def run_suites(suites: Mapping[str, Suite], contexts: Mapping[str, SuiteContext]) -> SuiteFigures:
    """Every suite on every arm: one arm after another, and before all what must be alone."""
    evaluated = SuiteFigures({name: {} for name in suites}, [])
    alone = [name for name, suite in suites.items() if suite.alone]
    others = [name for name in suites if name not in alone]
    order = [(name, arm) for name in alone for arm in contexts]
    order += [(name, arm) for arm in contexts for name in others]
    for name, arm in order:
        own = evaluated.found[name][arm] = []
        try:
            for one in suites[name].run(contexts[arm]):
                own.append(one)
        except NotMeasuredError as error:
            evaluated.not_measured.append({"suite": name, "arm": arm, "why": str(error)})
    return evaluated


def _figures(
    suites: Mapping[str, Suite], evaluated: SuiteFigures, drawing: Drawing
) -> list[Measured]:
    """Every figure of every arm, then the differences from the first arm, suite by suite."""
    lines: list[Measured] = []
    for name, suite in suites.items():
        by_arm = evaluated.found[name]
        lines += [measured(name, arm, one, drawing) for arm, own in by_arm.items() for one in own]
        lines += differences(name, by_arm, next(iter(by_arm)), drawing)
        if suite.across is not None:
            lines += [one._replace(suite=name) for one in suite.across(by_arm)]
    return lines


def _context(
    evaluating: Evaluating, arm: Arm, first: str, items: Sequence[Item], asking: Asking
) -> SuiteContext:
    def cost(asked: Sequence[Item]) -> Mapping[str, Any]:
        if arm.kind not in ("model", "endpoint"):
            raise NotMeasuredError("recorded replies take no time")
        answering, prompts = evaluating.answering(arm.adapter), [item.prompt for item in asked]
        names = [item.id for item in asked]
        return asking.once(arm.name)(
            json.dumps(["cost", names]),
            lambda: measure_cost(arm.line, answering, prompts, ours=arm.kind == "model"),
        )

    return SuiteContext(
        arm=arm.name,
        first=first,
        items=items,
        replies=lambda asked: asking.replies(arm.name, asked),
        replies_of=asking.replies,
        log_probs=lambda asked: asking.log_probs(arm.name, asked),
        once=asking.once(arm.name),
        cost=cost,
        seed=evaluating.seed,
        judge=asking.judge,
        reward=asking.reward,
        languages=evaluating.languages,
        limit=evaluating.limit,
        folder=evaluating.out,
        options=evaluating.options,
    )


def _result(
    evaluating: Evaluating,
    suites: Mapping[str, Suite],
    items: Sequence[Item],
    asking: Asking,
    evaluated: SuiteFigures,
) -> dict[str, Any]:
    drawing = Drawing(evaluating.seed, evaluating.draws)
    files = {file: file_sha256(path) for file in evaluating.data
             if (path := locate_source(file)).is_file()}  # fmt: skip
    judge, reward = asking.judge, asking.reward
    return {
        "suites": {
            name: {"about": suite.about, "by_group": suite.by_group}
            for name, suite in suites.items()
        },
        "arms": {
            name: asking.identity(name)._asdict() | {"back_end": arm.told}
            for name, arm in asking.arms.items()
        },
        "judge": None if judge is None else judge.name,
        "reward": None if reward is None else reward.name,
        "items": {
            "n": len(items),
            "clusters": len({item.cluster for item in items}),
            "part": evaluating.part,
            "sha256": files,
            "prompts": prompts_hash([item.prompt for item in items]),
        },
        "intervals": {"draws": evaluating.draws, "seed": evaluating.seed, "level": 0.95},
        "settings": _settings(evaluating),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("hen_jax", "jax", "numpy", "transformers")},
        "figures": [one._asdict() for one in _figures(suites, evaluated, drawing)],
        "not_measured": evaluated.not_measured,
    }


def _settings(evaluating: Evaluating) -> dict[str, Any]:
    given = dataclasses.asdict(evaluating)
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()
            if name not in ("out", "inspect")}  # fmt: skip


def _shown(
    items: Sequence[Item], replies: Mapping[str, Mapping[str, Reply]]
) -> list[dict[str, Any]]:
    """A few items with each arm's reply, spread over the data."""
    asked = [item for item in items if any(item.id in own for own in replies.values())]
    count = min(_SHOWN, len(asked))
    return [
        {
            "id": item.id,
            "prompt": [message_row(message) for message in item.prompt],
            REFERENCES: item.reference,
            "replies": {arm: own[item.id].text for arm, own in replies.items() if item.id in own},
        }
        for item in (asked[at * len(asked) // count] for at in range(count))
    ]


def _samples(items: Sequence[Item], replies: Mapping[str, Mapping[str, Reply]]) -> Iterable[str]:
    """Records of the schema `messages`; an empty reply, which nobody could rate, is none."""
    for arm, own in replies.items():
        for item in items:
            if item.id in own and own[item.id].text.strip():
                said = [*map(message_row, item.prompt)]
                said.append({"role": "assistant", "content": own[item.id].text})
                row = {"id": f"{arm}/{item.id}", "group": item.cluster, "messages": said}
                yield json.dumps(row, ensure_ascii=False) + "\n"

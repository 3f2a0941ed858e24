"""The suite `experts` of `hen evaluate`: arms and measures of a file, on replayed conversations.

The file has arms of its own, as one of them may be several adapters, so all of them are measured
beside the first arm of the command, and each is a group of the figures. `experts/` in the folder of
the results has the whole report and its pictures.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Measured, Suite, SuiteContext
from hen_jax.verbs.evaluate.experts_measured import measure_experts
from hen_jax.verbs.evaluate.experts_settings import read_measurement

OPTION, FOLDER = "experts", "experts"


def _figures(found: Mapping[str, Any]) -> Iterator[Measured]:
    """The lines of a report: for each measure and arm what it says over all conversations."""
    clusters = sum(found["conversations"].values())
    for measure, report in found["measures"].items():
        for arm, held in report["persistence"].items():
            gap, left = report["gaps"].get(arm, {}), report.get("effects", {}).get(arm, {})
            rows = {
                "gap_reduction": gap.get("reduction"),
                "gap_reduction_mean": gap.get("mean_reduction"),
                "factor": gap.get("factor"),
                "late_retention": held["late"],
                "late_closeness": report["closeness"][arm]["late"],
                "slope": held["slope"],
                "area": held["area"],
                "survives_replies_alone": left.get("share"),
            }
            rows |= {f"level/{name}": one for name, one in report["levels"][arm].items()}
            for name, one in rows.items():
                if one is not None:
                    yield Measured(
                        "", "", f"{measure}: {name}", arm, one["value"], one["low"], one["high"],
                        clusters, one["groups"], report["missing"][arm],
                        seed=found["settings"]["seed"], judge=measure, about=report["claim"],
                    )  # fmt: skip


def _run(context: SuiteContext) -> Iterator[Measured]:
    name = context.options.get(OPTION)
    if name is None:
        raise InputError(
            "--suite experts reads its arms and measures from a file: give --option experts=FILE "
            "(docs/experts.md)"
        )
    assert context.folder is not None
    asked = read_measurement(Path(name))
    if context.arm == context.first:
        yield from _figures(measure_experts(asked, context.folder / FOLDER))


SUITE = Suite(
    _run,
    "experts on replayed conversations: gaps, persistence, what replies alone show",
    options=(OPTION,),
)

"""A pipeline: which stages it trains, each a config of its own, and what each reads of others."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.ranges import Count, Natural, NotNegative, check_ranges
from hen_jax.recipes.table import stage_of
from hen_jax.runs.config_files import plain_config
from hen_jax.runs.model import ModelSettings
from hen_jax.runs.settings import settings
from hen_jax.runs.stage import Stage
from hen_jax.verbs.run.launch import load_config

PREPARE, EVALUATE, EXPORT, REPORT = "prepare", "evaluate", "export", "report"
"""The steps that every pipeline has beside its stages, in this order around them."""

OF_STAGE = "stage:"
"""Before the name of an earlier stage, in any field that takes a path: `stage:sft` is the folder of
its run, `stage:reward/export/hf` an export of it, made when it is asked for."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FORMATS = ("hf", "peft")


@dataclasses.dataclass(frozen=True)
class PipelineStep:
    """One stage of a pipeline: a config, and the fields of it that are set otherwise."""

    name: str  # its folder in the work directory
    config: str  # a built-in name or a file, with its variant: sft:tiny
    fields: tuple[str, ...] = ()  # what it sets, such as epochs=0.5 or start=stage:sft
    minutes: NotNegative = 1.0  # that it is expected to take beside the others, for the time left

    def __post_init__(self):
        check_ranges(self)
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise InputError(
                f"name is {self.name!r}; give small letters, digits and _, and none of "
                f"{', '.join(_TAKEN)}"
            )


_TAKEN = (
    PREPARE, EVALUATE, EXPORT, REPORT, "model", "seed", "recipe", "stages", "exports", "suites"
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Suites:
    """What `hen evaluate` is asked about the base and every stage that speaks."""

    names: tuple[str, ...] = ("high_context",)  # of its suites; none: nothing is evaluated
    data: tuple[str, ...] = ("shipped:hed/hed.en.jsonl",)  # files of the schema hed, shipped or own
    limit: Natural = 0  # items of each task at most; 0: all
    max_new_tokens: Count = 64  # of a reply
    reward: str | None = None  # a reward model's folder, such as stage:reward/export/hf
    judge: str | None = None  # who judges, as for `hen judge`

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """Stages that train one after another from one base; `--config.STAGE.FIELD` sets a field of
    one of them."""

    recipe: str  # "pipeline"
    model: ModelSettings  # the base of every stage
    stages: tuple[PipelineStep, ...]  # in order; a stage reads of earlier ones alone
    suites: Suites = Suites()
    exports: tuple[str, ...] = ()  # of which stages, in which format: "policy/hf", "experts/peft"
    seed: Natural = 0  # of every stage

    def __post_init__(self):
        check_ranges(self)
        names = [step.name for step in self.stages]
        if not names or len(set(names)) < len(names):
            raise InputError(f"stages are called {names}; give at least one, each its own name")
        for export in self.exports:
            name, _, format_ = export.partition("/")
            if name not in names or format_ not in _FORMATS:
                raise InputError(
                    f"exports has {export!r}; give STAGE/hf or STAGE/peft of {', '.join(names)}"
                )


class PlannedStage(NamedTuple):
    """A stage of a pipeline, with its settings read."""

    step: PipelineStep
    stage: Stage
    settings: Any  # of the stage, with every reference replaced by its path
    written: Any  # the same as JSON, with the references as they are
    reads: tuple[str, ...]  # of earlier stages: "sft", "reward/export/hf"


def plan_stages(pipeline: PipelineSettings, workdir: Path) -> list[PlannedStage]:
    """Every stage's settings, before anything is trained.

    Raises:
      InputError: a bad field of a stage, which it names, or a reference to no earlier stage.
    """
    planned: list[PlannedStage] = []
    for step in pipeline.stages:
        try:
            planned.append(_planned(pipeline, step, workdir, [one.step.name for one in planned]))
        except InputError as error:
            raise InputError(f"stage {step.name!r} ({step.config}): {error}") from None
    return planned


def _planned(
    pipeline: PipelineSettings, step: PipelineStep, workdir: Path, earlier: list[str]
) -> PlannedStage:
    shared = {"model.source": pipeline.model.source, "model.dtype": pipeline.model.dtype}
    flags = [f"{name}={value}" for name, value in shared.items() if value is not None]
    fields = [*flags, f"seed={pipeline.seed}", *step.fields]
    config = plain_config(load_config(step.config, [f"--config.{field}" for field in fields]))
    stage = stage_of(config.get("recipe"))
    reads = tuple(dict.fromkeys(_references(config)))
    for one in reads:
        if one.partition("/")[0] not in earlier:
            raise InputError(
                f"{OF_STAGE}{one} is no earlier stage; there are {', '.join(earlier) or 'none'}"
            )
    written = dataclasses.asdict(settings(stage.settings, config))
    placed = settings(stage.settings, _replaced(config, workdir.absolute()))
    return PlannedStage(step, stage, placed, written, reads)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        node = tuple(node.values())
    if isinstance(node, tuple):
        for item in node:
            yield from _references(item)
    elif isinstance(node, str) and node.startswith(OF_STAGE):
        yield node.removeprefix(OF_STAGE)


def _replaced(node: Any, workdir: Path) -> Any:
    if isinstance(node, dict):
        return {key: _replaced(item, workdir) for key, item in node.items()}
    if isinstance(node, tuple):
        return tuple(_replaced(item, workdir) for item in node)
    if isinstance(node, str) and node.startswith(OF_STAGE):
        return str(workdir / node.removeprefix(OF_STAGE))
    return node

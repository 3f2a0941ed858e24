"""The steps of a pipeline: what each reads, makes and leaves."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from hen_jax.core.checksums import file_sha256, text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD, write_json
from hen_jax.core.records import seal
from hen_jax.data.cache import file_fingerprint
from hen_jax.models.config import LoraConfig
from hen_jax.runs import train
from hen_jax.runs.arms import model_and_adapter
from hen_jax.runs.export.folders import EXPORTS, describe_export, export
from hen_jax.runs.model import TEXT_FILES, WEIGHT_FILES, ensure_model, fingerprint
from hen_jax.runs.record import decisive, read_back
from hen_jax.runs.sources import locate_source
from hen_jax.training.checkpoints import saved_steps
from hen_jax.training.locks import only_run
from hen_jax.training.manifests import MANIFEST
from hen_jax.training.progress import Place
from hen_jax.training.signals import stop_early
from hen_jax.verbs.data.cards import Used, data_cards, model_card
from hen_jax.verbs.evaluate.evaluate import RESULTS, evaluate
from hen_jax.verbs.evaluate.settings import Evaluating
from hen_jax.verbs.pipeline.settings import (
    EVALUATE,
    EXPORT,
    OF_STAGE,
    PREPARE,
    REPORT,
    PipelineSettings,
    PlannedStage,
)
from hen_jax.verbs.report.report import REPORT_FILE, report
from hen_jax.verbs.report.sections import sources_in

DATA_CARDS = "data.json"
"""What `prepare` leaves in its folder: the data and the base, counted and with their checksums."""

EXPECTED_MINUTES, EVALUATION_MINUTES = 0.2, 1.0
"""Of a step that trains nothing, and of the evaluation, beside the minutes of stages."""


class StepWork(NamedTuple):
    """A step, ready to be made."""

    name: str
    about: str
    inputs: Callable[[], dict[str, str]]  # what it reads, by checksum
    make: Callable[[Place], None]
    outputs: Callable[[], str | None]  # a checksum of what is there; None: nothing is
    after: tuple[str, ...] = ()  # steps whose outputs it reads
    needs: tuple["StepWork", ...] = ()  # steps of no number of their own, made before it
    minutes: float = EXPECTED_MINUTES
    aside: Path | None = None  # what it made of other inputs, to be set aside; None: it replaces it


def works_of(
    pipeline: PipelineSettings, planned: Sequence[PlannedStage], workdir: Path
) -> list[StepWork]:
    """All steps in order: prepare, the stages, evaluate, export, report."""
    by_name = {one.step.name: one for one in planned}
    exports = [one for named in pipeline.exports for one in _exports(named, by_name, workdir)]
    stages = [_training(one, by_name, workdir) for one in planned]
    names = tuple(by_name)
    evaluating = [_evaluating(pipeline, by_name, workdir)] if pipeline.suites.names else []
    made = (*names, *(work.name for work in evaluating), *((EXPORT,) if exports else ()))
    return [
        _preparing(planned, workdir),
        *stages,
        *evaluating,
        *([_exporting(tuple(exports))] if exports else []),
        _reporting(made, workdir),
    ]


def _preparing(planned: Sequence[PlannedStage], workdir: Path) -> StepWork:
    folder = workdir / PREPARE
    used = [Used(source, one.step.name) for one in planned for source in sources_in(one.written)]
    models = {one.settings.model.source: one.settings.model for one in planned}

    def inputs() -> dict[str, str]:
        paths = {one.source["path"] for one in used}
        return _files(paths) | {f"base:{name}": text_sha256(name) for name in models}

    def make(place: Place) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        cards = [model_card(one) for one in models.values()]
        write_json(folder / DATA_CARDS, {"models": cards, "data": data_cards(used)})

    return StepWork(
        PREPARE,
        f"{len({one.source['path'] for one in used})} data files and the base are read",
        inputs,
        make,
        partial(_file, folder / DATA_CARDS),
    )


def _training(one: PlannedStage, by_name: Mapping[str, PlannedStage], workdir: Path) -> StepWork:
    folder = workdir / one.step.name
    needs: list[StepWork] = []
    after: list[str] = []
    for read in one.reads:
        name, _, rest = read.partition("/")
        if rest.startswith(f"{EXPORTS}/"):
            needs.append(_export(by_name[name], rest.removeprefix(f"{EXPORTS}/"), workdir))
            after.append(needs[-1].name)
        else:
            after.append(name)

    def make(place: Place) -> None:
        with stop_early(), only_run(folder):
            train.run(one.stage, one.settings, folder, place)
        jax.clear_caches()  # the next stage has programs of its own
        gc.collect()

    return StepWork(
        one.step.name,
        f"trains {one.step.config}",
        partial(_stage_inputs, one),
        make,
        partial(_newest, folder),
        tuple(dict.fromkeys(after)),
        tuple(needs),
        one.step.minutes,
        aside=folder,
    )


def _stage_inputs(one: PlannedStage) -> dict[str, str]:
    config, base = read_back(one.written), ensure_model(one.settings.model)
    paths = {path for path in _paths(config) if not path.startswith("stage:")}
    return _files(paths) | {
        **{f"config.{key}": text_sha256(seal({"of": v})) for key, v in decisive(config).items()},
        "base": fingerprint(base, WEIGHT_FILES) + fingerprint(base, TEXT_FILES),
    }


def _exports(named: str, by_name: Mapping[str, PlannedStage], workdir: Path) -> list[StepWork]:
    """Those that `STAGE/FORMAT` of the config names: of experts one each."""
    name, _, format_ = named.partition("/")
    one = by_name[name]
    experts = _adapters(one)
    if experts and format_ != "peft":
        raise InputError(f"config.exports has {named!r}; of experts give {name}/peft")
    return [_export(one, leaf, workdir) for leaf in experts or [format_]]


def _adapters(one: PlannedStage) -> list[str]:
    made: Mapping[str, LoraConfig] = {}
    if one.stage.adapters is not None:
        made = one.stage.adapters(one.settings)
    return list(made)


def _export(one: PlannedStage, leaf: str, workdir: Path) -> StepWork:
    """The export of a stage to its folder `export/LEAF`: a format, or an expert's name."""
    run, experts = workdir / one.step.name, _adapters(one)
    allowed = experts or (["hf"] if one.settings.adapter is None else ["hf", "peft"])
    if leaf not in allowed:
        raise InputError(
            f"stage:{one.step.name}/{EXPORTS}/{leaf} is no export; there are {', '.join(allowed)}"
        )
    out = run / EXPORTS / leaf

    def make(place: Place) -> None:
        if experts:
            found = export(run, out, "peft", expert=leaf)
        else:
            found = export(run, out, "hf" if leaf == "hf" else "peft")
        print(f"{place.title} {describe_export(found)}".lstrip(), flush=True)

    return StepWork(
        f"{one.step.name}/{EXPORTS}/{leaf}",
        f"exports {one.step.name} to {out}",
        dict,
        make,
        partial(_file, out / RECORD),
        (one.step.name,),
    )


def _evaluating(
    pipeline: PipelineSettings, by_name: Mapping[str, PlannedStage], workdir: Path
) -> StepWork:
    """`hen evaluate` of the base and of each stage that speaks as one model."""
    folder, asked = workdir / EVALUATE, pipeline.suites
    speaking = [one for one in by_name.values() if one.stage.speaks]
    needs = [_export(one, _whole_or_adapter(one), workdir) for one in speaking]
    reward = (asked.reward or "").removeprefix(OF_STAGE)
    if reward != (asked.reward or ""):
        name, _, leaf = reward.partition(f"/{EXPORTS}/")
        if name not in by_name:
            raise InputError(f"config.suites.reward: {asked.reward} is no stage of this pipeline")
        needs.append(_export(by_name[name], leaf, workdir))
        reward = str(workdir / reward)

    def make(place: Place) -> None:
        base = ensure_model(pipeline.model)
        arms = [f"base={base}", *(_arm(one, base, workdir) for one in speaking)]
        evaluate(
            Evaluating(
                arm=tuple(arms),
                out=folder,
                suite=asked.names,
                data=asked.data,
                limit=asked.limit,
                reward=reward or None,
                judge=asked.judge,
                seed=pipeline.seed,
                max_new_tokens=asked.max_new_tokens,
            )
        )

    def inputs() -> dict[str, str]:
        scored = {str(one) for one in model_and_adapter(reward) if one} if reward else set()
        return _files({*asked.data, *scored}) | {
            "config.suites": text_sha256(repr(asked)),
            "config.seed": str(pipeline.seed),
            "base": fingerprint(ensure_model(pipeline.model), WEIGHT_FILES),
        }

    return StepWork(
        EVALUATE,
        f"measures the base and {', '.join(one.step.name for one in speaking)}",
        inputs,
        make,
        partial(_file, folder / RESULTS),
        tuple(one.name for one in needs),
        tuple(needs),
        EVALUATION_MINUTES,
    )


def _whole_or_adapter(one: PlannedStage) -> str:
    return "hf" if one.settings.adapter is None else "peft"


def _arm(one: PlannedStage, base: Path, workdir: Path) -> str:
    """NAME=MODEL or NAME=MODEL:ADAPTER, as `hen evaluate` names arms."""
    export = workdir / one.step.name / EXPORTS / _whole_or_adapter(one)
    whole = one.settings.adapter is None
    return f"{one.step.name}={export if whole else f'{base}:{export}'}"


def _exporting(exports: tuple[StepWork, ...]) -> StepWork:
    def outputs() -> str | None:
        found = [one.outputs() for one in exports]
        return None if None in found else text_sha256(" ".join(map(str, found)))

    names = tuple(one.name for one in exports)
    return StepWork(EXPORT, "exports are there", dict, lambda place: None, outputs, names, exports)


def _reporting(after: tuple[str, ...], workdir: Path) -> StepWork:
    out = workdir / REPORT_FILE

    def make(place: Place) -> None:
        report(workdir, out)

    about = f"writes {out}"
    return StepWork(REPORT, about, dict, make, partial(_file, out), (PREPARE, *after))


def _newest(run: Path) -> str | None:
    """The checksum of the newest checkpoint's list of files."""
    steps = saved_steps(run / "checkpoints")
    if not steps:
        return None
    return _file(run / "checkpoints" / str(steps[0]) / MANIFEST)


def _file(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None


def _files(paths: set[str]) -> dict[str, str]:
    """The checksums of the files and folders among the paths that a config names."""
    found = {path: locate_source(path) for path in sorted(paths)}
    return {path: file_fingerprint(file) for path, file in found.items() if file.exists()}


def _paths(node: Any) -> Iterator[str]:
    """Every path of a config: of data, of a reward's `FILE.py:NAME`, adapter or report."""
    if isinstance(node, Mapping):
        for key, item in node.items():
            if key in ("path", "calibration", "adapter") and isinstance(item, str):
                yield item
                yield item.rpartition(":")[0] or item
            yield from _paths(item)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _paths(item)

"""`hen run` of a pipeline: its steps in order, each skipped, resumed or made anew.

What a step reads is in `hen_jax.json` of the work directory, by checksums. A step whose inputs are
as they were is skipped when it is finished, and goes on where it stopped when it is not. A step
whose inputs changed is made anew; what it made before is set aside as `NAME.old-1`, never deleted.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD
from hen_jax.core.records import require_record, write_record
from hen_jax.io.packages import cache_folder
from hen_jax.runs.record import commit
from hen_jax.training.devices import start
from hen_jax.training.locks import only_run
from hen_jax.training.processes import ending_together
from hen_jax.training.progress import Place, duration
from hen_jax.training.signals import stop_early
from hen_jax.verbs.pipeline.settings import PipelineSettings, plan_stages
from hen_jax.verbs.pipeline.steps import StepWork, works_of

PIPELINE_KIND = "pipeline"
"""What the record of such a work directory calls it."""


class StepRecord(NamedTuple):
    """What the record says of a step."""

    inputs: Mapping[str, str]  # name -> checksum
    outputs: str | None = None  # a checksum; None: it is not finished
    seconds: float = 0.0


class Ledger:
    """The steps of a work directory, as its `hen_jax.json` holds them."""

    def __init__(self, workdir: Path, pipeline: PipelineSettings):
        self._workdir, self._config = workdir, dataclasses.asdict(pipeline)
        self._steps: dict[str, StepRecord] = {}
        if (workdir / RECORD).exists():
            self._steps = read_steps(workdir)

    def of(self, name: str) -> StepRecord | None:
        """What is known of a step."""
        return self._steps.get(name)

    def put(self, name: str, entry: StepRecord) -> None:
        """Writes what is now known of it."""
        self._steps[name] = entry
        steps = {one: known._asdict() for one, known in self._steps.items()}
        fields = {"config": self._config, "commit": commit(), "steps": steps}
        write_record(self._workdir, PIPELINE_KIND, fields, files=False)


_STEP = {"inputs": {...: str}, "outputs?": (None, str), "seconds?": (None, float)}
_SHAPE = {"steps": {...: _STEP}}


def read_steps(workdir: Path) -> dict[str, StepRecord]:
    """What the record of a pipeline's work directory says of its steps.

    Raises:
      InputError: there is no such record, or it is damaged.
    """
    steps = require_record(workdir, PIPELINE_KIND, _SHAPE)["steps"]
    return {
        name: StepRecord(known["inputs"], known.get("outputs"), known.get("seconds") or 0.0)
        for name, known in steps.items()
    }


def run_pipeline(pipeline: PipelineSettings, workdir: Path, only: str | None = None) -> None:
    """Runs the steps that are left, or `only` the one of that name.

    Raises:
      InputError: bad settings of any stage, before anything is trained; no step of that name, or
        one that reads what is not finished; several processes.
    """
    with ending_together(), stop_early():
        start(cache_folder() / "xla")
        if jax.process_count() > 1:
            raise InputError("a pipeline is for one process; run its stages one by one on several")
        works = works_of(pipeline, plan_stages(pipeline, workdir), workdir)
        _require_named(works, only)
        with only_run(workdir, PIPELINE_KIND):
            ledger = Ledger(workdir, pipeline)
            for number, work in enumerate(works):
                if only in (None, work.name):
                    title = f"[{number + 1}/{len(works)} {work.name}]"
                    later = [] if only else works[number + 1 :]
                    bring(ledger, work, Place(title, seconds_of(ledger, works, later)))
    print(f"All steps are done: {workdir / 'report.html'} says what was made.", flush=True)


def _require_named(works: Sequence[StepWork], only: str | None) -> None:
    names = [work.name for work in works]
    if only not in (None, *names):
        raise InputError(f"--stage={only}: no such step; there are {', '.join(names)}")


def bring(ledger: Ledger, work: StepWork, place: Place) -> None:
    """Makes what a step makes, unless it is there.

    Raises:
      InputError: what it reads is not there; or as the step.
    """
    for needed in work.needs:
        bring(ledger, needed, place)
    known, now = ledger.of(work.name), _inputs(ledger, work)
    if known is not None and known.inputs != now:
        changed = sorted(k for k in known.inputs.keys() | now if known.inputs.get(k) != now.get(k))
        _say(place, f"{work.name} is made anew, as what it reads changed: {', '.join(changed)}")
        if work.aside is not None:
            set_aside_old(work.aside)
        known = None
    elif known is not None and known.outputs is not None and known.outputs == work.outputs():
        _say(place, f"{work.name}: done, and what it reads is as it was")
        return
    before = 0.0 if known is None else known.seconds
    ledger.put(work.name, StepRecord(now, None, before))
    began = time.monotonic()
    _say(place, work.about)
    try:
        work.make(place)
    except BaseException:
        ledger.put(work.name, StepRecord(now, None, before + time.monotonic() - began))
        raise
    seconds = before + time.monotonic() - began
    ledger.put(work.name, StepRecord(now, work.outputs(), seconds))
    _say(place, f"{work.name}: {duration(seconds)}")


def _inputs(ledger: Ledger, work: StepWork) -> dict[str, str]:
    """What the step reads, by checksum: of itself, and of the steps before it."""
    found = work.inputs()
    for name in work.after:
        known = ledger.of(name)
        if known is None or known.outputs is None:
            raise InputError(f"{work.name} reads what {name} makes: run --stage={name} first")
        found[name] = known.outputs
    return found


def set_aside_old(folder: Path) -> Path | None:
    """Renames a folder or file to the first free `NAME.old-1`, `.old-2`, ...; None: it is gone."""
    if not folder.exists():
        return None
    number = 1
    while (old := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(old)
    print(f"{folder} is set aside as {old.name}; remove it if it is not needed", flush=True)
    return old


def seconds_of(ledger: Ledger, works: Sequence[StepWork], left: Sequence[StepWork]) -> float:
    """What `left` is expected to take: as the last time, or by the minutes that the config gives.

    Those are scaled by what finished steps took and were expected to take.
    """
    took = [
        (known.seconds, work.minutes)
        for work in works
        if (known := ledger.of(work.name)) is not None and known.outputs is not None
    ]
    expected = sum(minutes for _, minutes in took)
    rate = sum(seconds for seconds, _ in took) / expected if expected else 60.0

    def one(work: StepWork) -> float:
        known = ledger.of(work.name)
        if known is None or known.outputs is None:
            return rate * work.minutes
        return known.seconds

    return sum(map(one, left))


def _say(place: Place, text: str) -> None:
    print(f"{place.title} {text}".lstrip(), flush=True)

"""What a report tells of a folder: the runs in it, as they wrote it down themselves."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD, read_json
from hen_jax.core.records import Record, read_record
from hen_jax.recipes.run_results import RESULTS, Row, results_of
from hen_jax.runs.replies import held_out_prompts
from hen_jax.runs.settings import settings
from hen_jax.runs.sources import Source
from hen_jax.training.goodput import GOODPUT_FILE
from hen_jax.training.metrics import METRICS_FILE, read_metrics


class RunStory(NamedTuple):
    """A run: one stage of a pipeline, or the whole folder."""

    name: str
    folder: Path
    record: Record
    lines: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    results: Sequence[Row]
    goodput: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings, as the record holds them."""
        return self.record["config"]

    @property
    def updates(self) -> int:
        """How many there were."""
        return max((line["step"] for line in self.lines if line["kind"] == "train"), default=0)

    @property
    def finished(self) -> bool:
        """Whether its last attempt came to its end."""
        attempts = self.goodput.get("attempts", [])
        return bool(attempts) and attempts[-1].get("ended") == "finished"


class Said(NamedTuple):
    """A reply to a prompt, and whose it is."""

    arm: str
    text: str
    blind: int  # its place where names are hidden: an order that says nothing


class Asked(NamedTuple):
    """A held-out prompt, and what each arm replied."""

    id: str
    prompt: str
    said: Sequence[Said]


class Story(NamedTuple):
    """All that a report tells."""

    folder: Path
    kind: str  # "run" or "pipeline"
    record: Record
    runs: Sequence[RunStory]
    cards: Mapping[str, Any]  # models and data, as `prepare` of a pipeline counted them
    results: Sequence[Row]  # of `hen evaluate`
    asked: Sequence[Asked]


PIPELINE, RUN = "pipeline", "run"
CARDS = Path("prepare") / "data.json"
EVALUATED = "evaluate"


def read_story(folder: Path) -> Story:
    """The story of a run's folder or a pipeline's, finished or not.

    Raises:
      InputError: the folder is neither, or a file in it is damaged.
    """
    record = read_record(folder) if folder.is_dir() else None
    if record is None or record.get("kind") not in (RUN, PIPELINE):
        raise InputError(f"{folder} is no folder of a run or a pipeline (no {RECORD} that says so)")
    if record["kind"] == RUN:
        runs = [read_run(folder, folder.resolve().name)]
    else:
        names = [step["name"] for step in record["config"]["stages"]]
        runs = [read_run(folder / name, name) for name in names if _is_run(folder / name)]
    return Story(
        folder=folder,
        kind=record["kind"],
        record=record,
        runs=runs,
        cards=read_json(folder / CARDS) if (folder / CARDS).exists() else {},
        results=_evaluated(folder),
        asked=_asked(runs),
    )


def _is_run(folder: Path) -> bool:
    return (folder / RECORD).exists()


def read_run(folder: Path, name: str) -> RunStory:
    """The story of one run. Raises `InputError` where its record or its log is damaged."""
    record = read_record(folder) or {}
    return RunStory(
        name,
        folder,
        record,
        read_metrics(folder) if (folder / METRICS_FILE).exists() else [],
        results_of(folder, name),
        read_json(folder / GOODPUT_FILE) if (folder / GOODPUT_FILE).exists() else {},
    )


def _evaluated(folder: Path) -> list[Row]:
    """The rows of `hen evaluate` in the folder's `evaluate/`; the runs' own rows aside."""
    path = folder / EVALUATED / RESULTS
    if not path.exists():
        return []
    found = read_json(path)
    rows = found.get("rows", []) if isinstance(found, Mapping) else found
    return [row for row in rows if "before" not in row and "controls" not in row]


def _asked(runs: Sequence[RunStory]) -> list[Asked]:
    """Replies side by side: of the base, before the first run, and of each run's end."""
    arms: dict[str, dict[str, str]] = {}
    for run in runs:
        steps = _reply_files(run.folder)
        if not steps:
            continue
        first, last = min(steps), max(steps)
        if first == 0 and run.config.get("start") is None:
            arms.setdefault("base", _replies(steps[first]))
        if last > 0:
            arms[run.name] = _replies(steps[last])
    if not arms:
        return []
    prompts = _prompts(runs, {name for replies in arms.values() for name in replies})
    return [_side_by_side(name, prompts.get(name, name), arms) for name in _order(arms)]


def _order(arms: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield from dict.fromkeys(name for replies in arms.values() for name in replies)


def _side_by_side(name: str, prompt: str, arms: Mapping[str, Mapping[str, str]]) -> Asked:
    found = [(arm, replies[name]) for arm, replies in arms.items() if name in replies]
    mixed = sorted(found, key=lambda one: hashlib.sha256(f"{name} {one[0]}".encode()).digest())
    return Asked(name, prompt, [Said(*one, mixed.index(one)) for one in found])


def _reply_files(run: Path) -> dict[int, Path]:
    return {
        int(path.stem): path for path in (run / "replies").glob("*.json") if path.stem.isdigit()
    }


def _replies(path: Path) -> dict[str, str]:
    return {one["id"]: one["reply"] for one in read_json(path)}


def _prompts(runs: Sequence[RunStory], names: set[str]) -> dict[str, str]:
    """What was asked, by the id of its record; none of a data file that is gone."""
    found: dict[str, str] = {}
    for run in runs:
        sources = tuple(settings(Source, one, "sources") for one in run.config["sources"])
        if sources and not names <= found.keys():
            try:
                documents = held_out_prompts(sources)
            except InputError:  # the file is not here any more: the ids say which they were
                continue
            for one in documents:
                found.setdefault(one.id, one.conversation.messages[-2].content)
    return found

"""What a report tells of a folder: the runs in it, as they wrote it down themselves."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hen_jax.core.errors import InputError
from hen_jax.core.files import RECORD, read_json, read_text
from hen_jax.core.links import real_path
from hen_jax.core.records import Record, read_record
from hen_jax.core.shapes import checked_shape, is_count, is_figure
from hen_jax.runs.replies import held_out_prompts
from hen_jax.runs.settings import settings
from hen_jax.runs.sources import Source
from hen_jax.training.goodput import GOODPUT_FILE
from hen_jax.training.metrics import METRICS_FILE, read_metrics
from hen_jax.verbs.report.results import ResultRow, results_of


class RunStory(NamedTuple):
    """A run: one stage of a pipeline, or the whole folder."""

    name: str
    folder: Path
    record: Record
    lines: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    results: Sequence[ResultRow]
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


class _Said(NamedTuple):
    """A reply to a prompt, and whose it is."""

    arm: str
    text: str
    blind: int  # its place where names are hidden: an order that says nothing


class SampleReplies(NamedTuple):
    """A held-out prompt, and what each arm replied."""

    id: str
    prompt: str
    said: Sequence[_Said]


class EvaluatedFolder(NamedTuple):
    """What `hen evaluate` found; of a folder without it nothing."""

    figures: Sequence[ResultRow] = ()
    not_measured: Sequence[Mapping[str, str]] = ()  # suite, arm, why
    asked: Sequence[SampleReplies] = ()


class Story(NamedTuple):
    """All that a report tells."""

    folder: Path
    kind: str  # "run" or "pipeline"
    record: Record
    runs: Sequence[RunStory]
    cards: Mapping[str, Any]  # models and data, as `prepare` of a pipeline counted them
    evaluated: EvaluatedFolder
    asked: Sequence[SampleReplies]


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
        runs = [read_run(folder, real_path(folder).name)]
    else:
        checked_shape(record, _PIPELINE, folder / RECORD, _COPY)
        names = [step["name"] for step in record["config"]["stages"]]
        runs = [read_run(folder / name, name) for name in names if _is_run(folder / name)]
    evaluated = _evaluated(folder)
    return Story(
        folder=folder,
        kind=record["kind"],
        record=record,
        runs=runs,
        cards=_shaped(folder / CARDS, _CARDS) if (folder / CARDS).exists() else {},
        evaluated=evaluated,
        asked=evaluated.asked or _asked(runs),
    )


def _is_run(folder: Path) -> bool:
    return (folder / RECORD).exists()


def read_run(folder: Path, name: str) -> RunStory:
    """The story of one run. Raises `InputError` where its record or its log is damaged."""
    record = checked_shape(read_record(folder), _RUN, folder / RECORD, _COPY)
    return RunStory(
        name,
        folder,
        record,
        read_metrics(folder) if (folder / METRICS_FILE).exists() else [],
        results_of(folder, name),
        _shaped(folder / GOODPUT_FILE, _GOODPUT) if (folder / GOODPUT_FILE).exists() else {},
    )


def _shaped(path: Path, shape: Any) -> Any:
    return checked_shape(read_json(path), shape, path, "remove it: the report goes without")


_COPY = "put a copy in its place"
_PIPELINE = {"config": {"stages": [{"name": str}]}}
_RUN = {
    "config": {
        "recipe": str,
        "model": {"source": str},
        "seed": int,
        "start?": (None, str),
        "adapter?": (None, {"rank": is_count}),
        "sources?": [dict],
    },
    "method?": str,
    "adapters?": dict,
    "base": {"weights_sha256": (None, str), "tokenizer_sha256": (None, str)},
    "versions": dict,
}
_GOODPUT = {"seconds?": {...: is_figure}, "attempts?": [dict]}
_CARDS = {
    "models?": [
        {
            "source": str,
            **dict.fromkeys(
                ("public_name", "license", "weights_sha256", "tokenizer_sha256"), (None, str)
            ),
        }
    ],
    "data": [
        {
            **dict.fromkeys(("path", "schema", "sha256", "origin"), str),
            **dict.fromkeys(("records", "groups"), is_count),
            "parts": dict.fromkeys(("train", "valid", "test"), is_count),
            "stages": [str],
        }
    ],
}
"""What the page shows of each file, in its shape."""


def _evaluated(folder: Path) -> EvaluatedFolder:
    """What `hen evaluate` left in the folder's `evaluate/`; nothing where it was not run."""
    path = folder / EVALUATED / "results.json"
    if not path.exists():
        return EvaluatedFolder()
    found = checked_shape(
        read_json(path), _RESULTS, path, "run hen evaluate again, or remove the folder"
    )
    return EvaluatedFolder(found["figures"], found["not_measured"], _samples(path.parent))


_FIGURE = (None, is_figure)
_RESULTS = {
    "figures": [
        {
            **dict.fromkeys(("suite", "arm", "measure"), str),
            **dict.fromkeys(("group?", "against?", "judge?"), str),
            **{f"{name}?": _FIGURE for name in ("value", "low", "high", "n", "missing", "p_holm")},
            "controls?": (None, {...: is_figure}),
            "better?": lambda one: one in ("higher", "lower", ""),
        }
    ],
    "not_measured": [{"suite": str, "arm": str, "why": str}],
}


def _samples(folder: Path) -> list[SampleReplies]:
    """Items that every arm answered, `SHOWN` of them, spread over all."""
    path, asked = folder / "samples.jsonl", dict[str, tuple[str, dict[str, str]]]()
    if not path.exists():
        return []
    for number, line in enumerate(read_text(path).rstrip("\n").split("\n"), start=1):
        try:
            row = checked_shape(json.loads(line), _SAMPLE, path, "")
            arm, _, item = row["id"].partition("/")
            *_, prompt, reply = (message["content"] for message in row["messages"])
        except (ValueError, RecursionError):
            raise InputError(f"{path}:{number}: damaged; run hen evaluate again") from None
        asked.setdefault(item, (prompt, {}))[1][arm] = reply
    arms = {arm for _, said in asked.values() for arm in said}
    names = [name for name, (_, said) in asked.items() if said.keys() == arms]
    shown = [names[at * len(names) // _SHOWN] for at in range(_SHOWN)] if names else []
    return [_side_by_side(name, *asked[name]) for name in dict.fromkeys(shown)]


_SHOWN = 12
_SAMPLE = {"id": str, "messages": [{"content": str}]}


def _asked(runs: Sequence[RunStory]) -> list[SampleReplies]:
    """Replies of the runs' own log: of the base, before the first run, and of each run's end."""
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
    names = dict.fromkeys(name for replies in arms.values() for name in replies)
    prompts = _prompts(runs, set(names))
    said = {
        name: {arm: replies[name] for arm, replies in arms.items() if name in replies}
        for name in names
    }
    return [_side_by_side(name, prompts.get(name, name), said[name]) for name in names]


def _side_by_side(name: str, prompt: str, said: Mapping[str, str]) -> SampleReplies:
    """The replies to a prompt, each with its place where names are hidden: by a hash."""
    found = list(said.items())
    mixed = sorted(found, key=lambda one: hashlib.sha256(f"{name} {one[0]}".encode()).digest())
    return SampleReplies(name, prompt, [_Said(*one, mixed.index(one)) for one in found])


def _reply_files(run: Path) -> dict[int, Path]:
    return {
        int(path.stem): path
        for path in (run / "replies").glob("*.json")
        if path.stem.isdecimal() and path.stem.isascii()
    }


def _replies(path: Path) -> dict[str, str]:
    return {one["id"]: one["reply"] for one in _shaped(path, [{"id": str, "reply": str}])}


def _prompts(runs: Sequence[RunStory], names: set[str]) -> dict[str, str]:
    """What was asked, by the id of its record; none of a data file that is gone."""
    found: dict[str, str] = {}
    for run in runs:
        sources = tuple(settings(Source, one, "sources") for one in run.config.get("sources") or ())
        if sources and not names <= found.keys():
            try:
                documents = held_out_prompts(sources)
            except InputError:  # the file is not here any more: the ids say which they were
                continue
            for one in documents:
                found.setdefault(one.id, one.conversation.messages[-2].content)
    return found

"""Where the numbers of a run go: a progress bar, JSON lines, and the trackers it names."""

import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import jax
from tqdm import tqdm

from hen_jax.core.errors import InputError
from hen_jax.core.files import set_aside, staged_file
from hen_jax.core.records import seal
from hen_jax.core.shapes import is_count, is_figure, misfit
from hen_jax.core.types import Mean
from hen_jax.training.processes import is_primary
from hen_jax.training.progress import ALONE, Place
from hen_jax.training.trackers import open_trackers

METRICS_FILE = "metrics.jsonl"

DIGITS = 8
"""Of a checksum, at the end of a line."""


def fetch_metrics(metrics: dict[str, Mean]) -> dict[str, float]:
    """The means as Python numbers; waits for the devices."""
    host = jax.device_get(metrics)
    return {name: float(mean.value) for name, mean in host.items()}


class MetricLog:
    """The open files of a run's metrics; to be used in `contextlib.closing`.

    On resumption at step `start`, lines of later steps (written by a process that was killed after
    its last checkpoint) are dropped, so that every step stands once; `lost_seconds` is the time
    they took. A damaged file is set aside, and its good lines are kept. Only the primary process
    writes. `headline` is the metric that the bar shows, and an evaluation tells; `place` is where
    the run stands among others.

    Every line ends in the first digits of its checksum, `"seal"`: a changed number is noticed.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        steps: int,
        *,
        trackers: Sequence[str] = ("tensorboard",),
        headline: str = "loss",
        quiet: bool = False,
        place: Place = ALONE,
    ):
        self.folder, self.lost_seconds, self._headline = folder, 0.0, headline
        self.place = place
        self.writes = is_primary()
        path = folder / METRICS_FILE if self.writes else Path(os.devnull)
        if self.writes:
            folder.mkdir(parents=True, exist_ok=True)
            self.lost_seconds = _keep_until(path, start)
        self._lines = path.open("a", encoding="utf-8")
        self._trackers = open_trackers(trackers, folder, start) if self.writes else []
        self._quiet = quiet
        hidden = quiet or not self.writes
        self._bar = tqdm(
            desc=place.title or None,
            total=steps,
            initial=start,
            unit="step",
            disable=hidden or None,
        )

    def close(self) -> None:
        """Closes the files; each, though another one cannot be written to its end."""
        with ExitStack() as stack:
            stack.callback(self._bar.close)
            stack.callback(self._lines.close)
            for tracker in self._trackers:
                stack.callback(tracker.close)

    @property
    def plain(self) -> bool:
        """Whether there is no progress bar where there should be one: no terminal shows it."""
        return self.writes and not self._quiet and self._bar.disable

    def train(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics of one update."""
        self._write(step, "train", values)
        speed = values.get("tokens_per_second")
        told = "" if speed is None else f", {speed:.0f} tokens/s"
        self._bar.set_postfix_str(f"{self._headline} {values[self._headline]:.3f}{told}")
        self._bar.update()

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics of one evaluation; none where nothing was held out."""
        self._write(step, "eval", values)
        if self._headline in values:
            self.say(f"step {step}: held-out {self._headline} {values[self._headline]:.4f}")

    def looked(self, step: int, evaluator: str, values: dict[str, float]) -> None:
        """Writes what the evaluator of that name found."""
        self._write(step, evaluator, values)
        told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.say(f"step {step}: {evaluator}: {told}")

    def skipped(self, step: int, records: Sequence[str], beyond: Sequence[str] = ()) -> None:
        """Writes and tells that an update was left out, and which records its batch held.

        `beyond` says which rows exceed what the step was compiled for, as their loss is NaN.
        """
        told = {"beyond": list(beyond)} if beyond else {}
        self._line({"step": step, "kind": "skipped", "records": list(records)} | told)
        self.say(
            f"step {step}: the gradient is not finite or far larger than usual; the update was "
            f"skipped. Records of its batch: {', '.join(records) or 'not known'}"
            + "".join(f"; {line}" for line in beyond)
        )

    def _write(self, step: int, kind: str, values: dict[str, float]) -> None:
        # JSON has no NaN: a reader of the file should see null, not fail.
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        self._line({"step": step, "kind": kind, **finite})
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for tracker in self._trackers:
            tracker.write(step, named)

    def say(self, text: str) -> None:
        """Tells the user something, above the progress bar; only on the primary process."""
        if self.writes:
            self._bar.write(text)
            sys.stdout.flush()  # a file or a pipe would keep it back for hours

    def _line(self, line: dict[str, Any]) -> None:
        self._lines.write(_sealed(line))
        self._lines.flush()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; a last line cut short by a kill is left out.

    Raises:
      InputError: a line is damaged; names it.
    """
    path = folder / METRICS_FILE
    return [line if line is not None else _refuse(path, n) for n, line in _numbered(path)]


def _numbered(path: Path) -> list[tuple[int, dict[str, Any] | None]]:
    """Number and content of each whole line; None for a damaged one."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = list(enumerate(text[: text.rfind("\n") + 1].split("\n")[:-1], 1))
    parsed = [(number, _object(line)) for number, line in lines]
    sealed = any(line is not None and "seal" in line for _, line in parsed)
    return [(number, _opened(line, sealed)) for number, line in parsed]


_HEAD = {"step": is_count, "kind": str, "seal?": str}
_SKIPPED = {**_HEAD, "records": [str], "beyond?": [str]}
_LINE = {**_HEAD, ...: (None, is_figure)}


def _object(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if misfit(line, (_SKIPPED, _LINE)) is None else None


def _opened(line: dict[str, Any] | None, sealed: bool) -> dict[str, Any] | None:
    """The line without its seal, if that fits; `sealed`: lines of this file have one."""
    if line is None or not sealed:
        return line
    found = line.pop("seal", None)
    return line if found == seal(line)[:DIGITS] else None


def _sealed(line: dict[str, Any]) -> str:
    return json.dumps(line | {"seal": seal(line)[:DIGITS]}) + "\n"


def _refuse(path: Path, number: int) -> NoReturn:
    raise InputError(
        f"{path}:{number} is no line of metrics as it was written; remove it, or the file: it "
        "holds what a run logged, and no run needs it to go on"
    )


def _keep_until(path: Path, step: int) -> float:
    """Drops the lines of later steps; how many seconds those steps took."""
    if path.is_dir():
        set_aside(path, "it is a folder")
    lines = _numbered(path) if path.exists() else []
    damaged = [number for number, line in lines if line is None]
    if damaged:
        set_aside(path, f"its line {damaged[0]} is not as it was written; the others are kept")
    good = [line for _, line in lines if line is not None]
    # What stands before the first update is measured again where no checkpoint is.
    kept = [line for line in good if 0 < step >= line["step"]]
    if lines:
        with staged_file(path) as staged, staged.open("w", encoding="utf-8") as file:
            file.writelines(map(_sealed, kept))
            file.flush()
            os.fsync(file.fileno())
    _tell_gap(path, kept, step)
    return sum(line.get("seconds") or 0.0 for line in good if line["step"] > step)


def _tell_gap(path: Path, kept: Sequence[dict[str, Any]], step: int) -> None:
    """Says so where the log holds less than was done: it was cut, damaged or removed."""
    there = {line["step"] for line in kept if line["kind"] == "train"}
    missing = [one for one in range(1, step + 1) if one not in there]
    if missing:
        print(
            f"{path} is damaged: of {step} updates it lacks {len(missing)}, the first one update "
            f"{missing[0]}; the run goes on without those lines",
            file=sys.stderr,
        )

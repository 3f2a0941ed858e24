"""Where the time of a run went, over all its attempts: `goodput.json` in the work directory."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, set_aside, write_json
from hen_jax.core.records import seal

GOODPUT_FILE = "goodput.json"

_Kind = Literal["compile", "input", "evaluation", "checkpoint"]
Ended = Literal["running", "stopped", "finished"]


class Goodput:
    """The time ledger of one attempt at a run, kept in `folder` beside those of earlier attempts.

    What is not timed as one of the kinds is productive: steps, and their way to the devices. Lost
    is what a killed attempt did after its last checkpoint, to be done again; down is the time
    between attempts, starting up included. The file is as new as the last `write`:
    `{"goodput": 0.91, "seconds": {"productive": ..., "compile": ..., "input": ...,
    "evaluation": ..., "checkpoint": ..., "lost": ..., "down": ...}, "attempts": [...]}`, where
    goodput is the productive share of the time since the first attempt began.
    """

    def __init__(self, folder: Path, step: int, lost_seconds: float, *, writes: bool = True):
        self._path, self._writes = folder / GOODPUT_FILE, writes
        self._began = time.time()
        self._seconds: dict[str, float] = dict.fromkeys(get_args(_Kind), 0.0)
        self._first, self._lost = step, lost_seconds
        self._earlier: list[dict[str, Any]] = []
        if writes and self._path.exists():
            self._earlier = _attempts(self._path, self._attempt(step, "running"))

    @contextmanager
    def spend(self, kind: _Kind) -> Iterator[None]:
        """What happens within is of this kind."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, time.perf_counter() - start)

    def add(self, kind: _Kind, seconds: float) -> None:
        """Counts seconds that the caller has measured."""
        self._seconds[kind] += seconds

    def write(self, step: int, ended: Ended) -> None:
        """Brings the file up to date; `step` updates are done and saved."""
        if not self._writes:
            return
        told = goodput_summary([*self._earlier, self._attempt(step, ended)])
        write_json(self._path, told | {"seal": seal(json.loads(json.dumps(told)))})

    def _attempt(self, step: int, ended: Ended) -> dict[str, Any]:
        now = time.time()
        productive = max(0.0, now - self._began - sum(self._seconds.values()))
        return {
            "began": _utc(self._began),
            "until": _utc(now),
            "first_step": self._first,
            "last_step": step,
            "ended": ended,
            "seconds": {"productive": productive, **self._seconds, "lost": self._lost},
        }


def goodput_summary(attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """The totals over all attempts, before the attempts."""
    kinds = attempts[-1]["seconds"].keys()
    seconds: dict[str, float] = {
        kind: sum(attempt["seconds"][kind] for attempt in attempts) for kind in kinds
    }
    first, last = _moment(attempts[0]["began"]), _moment(attempts[-1]["until"])
    wall = (last - first).total_seconds()
    seconds["down"] = max(0.0, wall - sum(seconds.values()))
    return {
        "goodput": seconds["productive"] / max(sum(seconds.values()), 1e-9),
        "seconds": seconds,
        "attempts": attempts,
    }


def _attempts(path: Path, now: dict[str, Any]) -> list[dict[str, Any]]:
    """The attempts before `now`; none where the ledger is damaged, which is then set aside."""
    try:
        told = read_json(path)
        sealed = told.pop("seal", None)  # there was none before
        if sealed is not None and sealed != seal(told):
            raise InputError("it is not as it was written")
        attempts = [_cut_short(attempt) for attempt in told["attempts"]]
        goodput_summary([*attempts, now])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        set_aside(path, error if isinstance(error, InputError) else "it is no time ledger")
        return []
    return attempts


def _cut_short(attempt: dict[str, Any]) -> dict[str, Any]:
    """An earlier attempt that never wrote its end was killed."""
    return attempt | {"ended": "killed"} if attempt["ended"] == "running" else attempt


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)

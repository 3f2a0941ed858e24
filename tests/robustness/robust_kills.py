"""SIGKILL of commands, at random moments and between changes of the file system."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recordings import record_all
from robust_commands import COMMANDS, SFT, Command
from robust_outcomes import LEFT_OVER, Row, difference, files, is_wanted, names

ROOT = Path(__file__).parents[2]
CHAIN = 4
"""Kills in a row before the command may end, at most."""

LONGEST = 900.0
"""Seconds after which a command counts as one that hangs."""

HOOK = '''
"""Kills this process just before the n-th change that it makes to files in a folder."""
import atexit, os, signal, sys, threading

folder, left = os.environ["ROBUST_FOLDER"], int(os.environ["ROBUST_CHANGE"])
changes = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree", "open"}
lock, seen = threading.Lock(), 0

def hook(event, arguments):
    global seen
    if event not in changes:
        return
    path = arguments[0]
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & 3):
        return
    # Within shutil.rmtree a name is relative to an open folder.
    inside = event in ("os.remove", "os.rmdir") and arguments[-1] != -1
    if inside or (isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(folder)):
        with lock:
            seen += 1
            if seen == left:
                os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("HEN_PROCESS_ID", "0") == "0":
    sys.addaudithook(hook)
    if os.environ["ROBUST_COUNT"]:
        atexit.register(lambda: open(os.environ["ROBUST_COUNT"], "w").write(str(seen)))
'''


class Moments(NamedTuple):
    """When a command can be killed."""

    changes: int  # of files, by its first process
    seconds: float


class Trial(NamedTuple):
    """A folder that one command works in: its output, its cache and its temporary files."""

    home: Path
    folder: Path

    @property
    def out(self) -> Path:
        """What the command writes."""
        return self.folder / "out"


def rows(home: Path, kills: int, draw: random.Random, only: str) -> list[Row]:
    """One row for each command, with about `kills` kills in all."""
    wanted = [command for command in COMMANDS if is_wanted(command.name, only)]
    if not kills or not wanted:
        return []
    (home / "hook").mkdir()
    (home / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    _prepare(home, wanted)
    total = sum(command.share for command in wanted)
    return [_row(home, one, -(-kills * one.share // total), draw) for one in wanted]


def _prepare(home: Path, wanted: Sequence[Command]) -> None:
    """What the commands read: recordings, a model, a run with an adapter, a GGUF file."""
    words = " ".join(word for command in wanted for word in command.words)
    if "{home}/said" in words:
        record_all(home)
    if "{home}/tiny.gguf" in words:
        from tiny_gguf import write_gguf

        write_gguf(home / "tiny.gguf")
    trial = _trial(home, "given")
    if "{home}/model" in words or "{home}/run" in words:
        _must_end(_begin(Command("", 0, ("import", "tiny", f"{home}/model"), files), trial), trial)
    if "{home}/run" in words:
        adapter = ("--config.adapter.rank=2", f"--config.model.source={home / 'model'}")
        _must_end(_begin(Command("", 0, (*SFT, *adapter), files), trial), trial)
        trial.out.rename(home / "run")


def _row(home: Path, command: Command, kills: int, draw: random.Random) -> Row:
    whole = _trial(home, "whole")
    _must_end(_begin(command, whole), whole)
    result, there = command.result(whole.out), names(whole.folder)
    began, events = time.monotonic(), home / "events"
    timed = _trial(home, "timed", whole)
    _must_end(_begin(command, timed, count=events), timed)
    moments = Moments(int(events.read_text()), time.monotonic() - began)
    if change := difference(command.result(timed.out), result):
        raise SystemExit(f"{command.name} never ends alike: {change}")
    made, faults, chains = Counter(), [], 0
    while made.total() < kills and chains < 2 * kills:
        trial = _trial(home, "trial", whole)
        if chains % 2 and command.exchanges:
            shutil.copytree(whole.out, trial.out)
        room = min(CHAIN, kills - made.total())
        story, fault = _chain(command, trial, moments, room, draw)
        chains += 1
        made.update(by for by, _ in story)
        fault = fault or _fault(command, trial, result, there)
        told = ", ".join(moment for _, moment in story)
        print(
            f"{command.name}: {made.total()} of {kills} kills ({told}): {fault or 'alike'}",
            flush=True,
        )
        faults += [f"{command.name}, killed at {told}: {fault}"] if fault else []
    alike = f"{chains - len(faults)} of {chains}"
    cells = (command.name, made.total(), made["time"], made["change"], alike)
    return Row(cells, faults)


def _chain(
    command: Command, trial: Trial, moments: Moments, room: int, draw: random.Random
) -> tuple[list[tuple[str, str]], str | None]:
    """Kills attempt after attempt, then lets one end: how and when, and what went wrong."""
    story = []
    for _ in range(draw.randint(1, room)):
        by_change = draw.random() < 0.6
        change = draw.randint(1, moments.changes) if by_change else 0
        after = LONGEST if by_change else draw.uniform(0.2, 1.0) * moments.seconds
        code = _attempt(_begin(command, trial, change), command, after)
        if code == 0:
            break  # it was faster this time
        if command.processes == 1 and code != -signal.SIGKILL:
            return story, f"exit code {code} after a kill: {_said(trial)}"
        story.append(("change", f"change {change}") if by_change else ("time", f"{after:.1f} s"))
    code = _begin(command, trial).wait(LONGEST)
    return story, f"exit code {code} at the end: {_said(trial)}" if code else None


def _trial(home: Path, name: str, before: Trial | None = None) -> Trial:
    """A new folder; the programs that were compiled `before` are there already."""
    folder = home / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    if before is not None and (before.folder / "cache" / "xla").exists():
        shutil.copytree(before.folder / "cache" / "xla", folder / "cache" / "xla")
    return Trial(home, folder)


def _begin(
    command: Command, trial: Trial, change: int = 0, count: Path | None = None
) -> subprocess.Popen:
    words = [word.format(home=trial.home, out=trial.out) for word in command.words]
    start = [sys.executable, "-m", "hen_jax.cli", *words]
    if command.processes > 1:
        start = [str(ROOT / "launch" / "local.sh"), str(command.processes), "4", *start]
    environ = os.environ | {
        "PYTHONPATH": f"{trial.home / 'hook'}{os.pathsep}{ROOT}",
        "HEN_CACHE": str(trial.folder / "cache"),
        "TMPDIR": str(trial.folder / "tmp"),
        "ROBUST_FOLDER": str(trial.folder),
        "ROBUST_CHANGE": str(change),
        "ROBUST_COUNT": str(count or ""),
    }
    with (trial.folder / "log").open("ab") as log:
        return subprocess.Popen(start, env=environ, stdout=log, stderr=log)


def _must_end(process: subprocess.Popen, trial: Trial) -> None:
    if process.wait():
        raise SystemExit(f"exit code {process.returncode} without a kill: {_said(trial)}")


def _attempt(process: subprocess.Popen, command: Command, after: float) -> int:
    """The exit code of an attempt that is killed after so many seconds, or by its own hook.

    Of several processes the last one is killed: the others must notice.
    """
    try:
        return process.wait(after)
    except subprocess.TimeoutExpired:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        victim = int(listed[-1]) if command.processes > 1 and listed else process.pid
        os.kill(victim, signal.SIGKILL)
    return process.wait(LONGEST)


def _said(trial: Trial) -> str:
    return (trial.folder / "log").read_text(encoding="utf-8", errors="replace")[-500:]


def _fault(command: Command, trial: Trial, result: Any, there: set[str]) -> str | None:
    """What is not as after a command that nothing happened to."""
    found = names(trial.folder)
    left = sorted(name for name in found if LEFT_OVER.search(name)) or sorted(found - there)
    if left:
        return f"left over: {', '.join(left[:5])}"
    if there - found:
        return f"missing: {', '.join(sorted(there - found)[:5])}"
    return difference(command.result(trial.out), result)

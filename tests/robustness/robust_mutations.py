"""Files damaged one at a time, each opened by the verb that reads it."""

import contextlib
import io
import os
import random
import shutil
import signal
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from robust_damages import DAMAGES
from robust_outcomes import Row, difference, files, trained

CONFIG = Path(__file__).parents[2] / "configs" / "sft.py"
LONGEST = 300
"""Seconds after which a verb counts as one that hangs."""

TOLD = ("is damaged", "set aside", "holds no evaluation")
"""What a verb says when it builds anew, takes what is older, or goes on without."""

RECORD = "hen_jax.json"

TIMED = "compilation included"
"""In the line of `hen generate` that tells its speed."""


class Target(NamedTuple):
    """Files of one kind, and the verb that opens them."""

    name: str
    share: int  # of the mutations, in 240
    pattern: str  # in the home; `NEWEST` is the newest checkpoint
    verb: str


TARGETS = (
    Target("model", 45, "model/*", "generate"),
    Target("model, as the base of a run", 25, "model/*", "run"),
    Target("adapter", 35, "peft/*", "adapter"),
    Target("run record", 15, "run/hen_jax.json", "run"),
    Target("run record ", 15, "run/hen_jax.json", "export"),
    Target("checkpoint", 30, "run/checkpoints/6/**/*", "run"),
    Target("checkpoint ", 20, "run/checkpoints/6/**/*", "export"),
    Target("data cache", 30, "cache/examples/**/*", "run"),
    Target("metrics, time ledger", 15, "run/[gm]*.json*", "run"),
    Target("metrics ", 10, "run/metrics.jsonl", "export"),
)


def rows(home: Path, count: int, draw: random.Random, only: str) -> list[Row]:
    """One row for each kind of file, with about `count` mutations in all."""
    wanted = [target for target in TARGETS if only in target.name]
    if not count or not wanted:
        return []
    os.environ |= {"HEN_CACHE": str(home / "cache"), "TMPDIR": str(home / "tmp")}
    (home / "tmp").mkdir()
    _prepare(home)
    clean = shutil.copytree(home, home.with_name(home.name + "-clean"))
    try:
        verbs = dict.fromkeys(target.verb for target in wanted)
        sound = {verb: _outcome(verb, home) for verb in verbs}
        total = sum(target.share for target in wanted)
        return [
            _row(home, clean, one, -(-count * one.share // total), sound[one.verb], draw)
            for one in wanted
        ]
    finally:
        shutil.rmtree(clean)


def words_of(verb: str, home: Path) -> list[str]:
    """What is typed."""
    generate = ["generate", "--model", f"{home}/model", "--prompt", "It rains."]
    generate += ["--temperature", "0", "--max-new-tokens", "4"]
    return {
        "generate": generate,
        "adapter": [*generate, "--adapter", f"{home}/peft"],
        "export": ["export", "--run", f"{home}/run", "--out", f"{home}/out", "--format", "peft"],
        "run": [
            "run",
            f"--config={CONFIG}:tiny",
            f"--workdir={home}/run",
            f"--config.model.source={home}/model",
            "--config.adapter.rank=2",
            "--config.epochs=0.2",
            "--config.data.batch_size=8",
            "--config.loop.checkpoint_every=4",
        ],
    }[verb]


def _prepare(home: Path) -> None:
    """A model, a run on it, its adapter, and the cache of its data."""
    given = (
        ["import", "tiny", f"{home}/model"],
        words_of("run", home),
        ["export", "--run", f"{home}/run", "--out", f"{home}/peft", "--format", "peft"],
    )
    for words in given:
        done = _type(words)
        if done.code != 0:
            raise SystemExit(f"{words}: {done.said}")


class Done(NamedTuple):
    """How a verb ended; `code` None is a traceback or a hang."""

    code: int | None
    said: str


def _type(words: list[str]) -> Done:
    """The command, in this process."""
    from hen_jax import cli

    def hangs(*_: object) -> None:
        raise TimeoutError(f"not done after {LONGEST} s")

    said = io.StringIO()
    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(LONGEST)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(words)
    except BaseException:
        return Done(None, said.getvalue() + traceback.format_exc())
    finally:
        signal.alarm(0)
    return Done(code, said.getvalue())


def _outcome(verb: str, home: Path) -> Any:
    """What a verb that ended well has given, to be compared."""
    done = _type(words_of(verb, home))
    if done.code != 0:
        raise SystemExit(f"{verb} of what is sound: {done.said}")
    return _given(verb, home, done)


def _given(verb: str, home: Path, done: Done) -> Any:
    if verb == "run":
        return trained(home / "run")
    if verb == "export":
        return files(home / "out")
    return [line for line in done.said.splitlines() if TIMED not in line]


def _row(
    home: Path, clean: Path, target: Target, count: int, sound: Any, draw: random.Random
) -> Row:
    counted, faults = Counter(), []
    while counted.total() < count:
        _restore(home, clean)
        found = [one for one in sorted(home.glob(target.pattern)) if one.is_file()]
        path = draw.choice(found)
        size = path.stat().st_size
        how = draw.choice(DAMAGES)(path, draw)
        if how is None:
            continue
        names = {path.name} | ({how.split()[-1]} if "swapped" in how else set())
        outcome = _judged(home, target.verb, names, sound)
        counted[outcome if outcome in ("refused", "told", "the same") else "fault"] += 1
        if outcome not in counted:
            where = f"{path.relative_to(home)} ({size} bytes) {how}"
            faults.append(f"{target.verb}: {where}: {outcome}")
            print(f"FAULT {faults[-1]}", flush=True)
    numbers = [counted[name] for name in ("refused", "told", "the same", "fault")]
    verb = "`hen generate`, adapted" if target.verb == "adapter" else f"`hen {target.verb}`"
    return Row((target.name.strip(), count, verb, *numbers), faults)


def _judged(home: Path, verb: str, names: set[str], sound: Any) -> str:
    done = _type(words_of(verb, home))
    said = done.said
    if done.code is None:
        return f"traceback: {said[-1500:]}"
    if done.code != 0:
        told = [line for line in said.splitlines() if line.startswith("hen: ")]
        named = len(told) == 1 and any(name in told[0] for name in names)
        return "refused" if named else f"exit code {done.code} without its name: {said[-800:]}"
    told = next((line for line in said.splitlines() if any(sign in line for sign in TOLD)), None)
    found, wanted = _given(verb, home, done), sound
    if told and "metrics.jsonl" in told:  # the log that is lost is all that may be lost
        found, wanted = (_without_log(one) for one in (found, wanted))
    change = difference(found, wanted)
    if told:
        return f"told, but another result: {change}" if change else "told"
    return f"SILENT: {change}" if change else "the same"


def _without_log(given: dict[str, Any]) -> dict[str, Any]:
    """What a run or an export is but for its log, the card that quotes it, and its checksum."""
    left_out = ("metrics", "README.md", RECORD)
    return {name: value for name, value in given.items() if name not in left_out}


def _restore(home: Path, clean: Path) -> None:
    for entry in home.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    shutil.copytree(clean, home, dirs_exist_ok=True)

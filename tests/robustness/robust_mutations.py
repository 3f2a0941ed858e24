"""Files damaged one at a time, each opened by the verb that reads it."""

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from robust_damages import DAMAGES
from robust_openings import OPENINGS, make, outcome, type_, words_of
from robust_outcomes import Row, difference, is_wanted

TOLD = ("is damaged", "set aside", "holds no evaluation")
"""What a verb says when it builds anew, takes what is older, or goes on without."""

RECORD = "hen_jax.json"

OUTPUTS = ".hen_written.json"
"""Where the checksums of what a verb wrote stand."""

ENDS = ("refused", "told", "the same", "as they are")
"""How a verb may end that opens a damaged file."""


class Target(NamedTuple):
    """Files of one kind, and the verb that opens them."""

    name: str
    share: int  # of the mutations, in 920
    pattern: str  # in the home
    verb: str  # of `OPENINGS`
    unsigned: bool = False
    """Nobody's checksum is over these: where they can still be read, they are taken as they are."""


TARGETS = (
    Target("model", 80, "model/*", "generate"),
    Target("model, as the base of a run", 45, "model/*", "run"),
    Target("adapter", 65, "peft/*", "adapter"),
    Target("run record", 30, "run/hen_jax.json", "run"),
    Target("run record ", 30, "run/hen_jax.json", "export"),
    Target("checkpoint", 60, "run/checkpoints/6/**/*", "run"),
    Target("checkpoint ", 40, "run/checkpoints/6/**/*", "export"),
    Target("data cache", 60, "cache/examples/**/*", "run"),
    Target("metrics, time ledger", 35, "run/[gm]*.json*", "run"),
    Target("metrics ", 20, "run/metrics.jsonl", "export"),
    Target("reward head", 70, "reward/*", "score"),
    Target("head of ratings", 50, "rating/*", "rate"),
    Target("router", 45, "routed/router/*", "route"),
    Target("GGUF", 70, "tiny.gguf", "import", unsigned=True),
    Target("replay", 30, "said/g.jsonl", "replay", unsigned=True),
    Target("replay ", 30, "said/j.jsonl", "judge", unsigned=True),
    Target("replay  ", 30, "said/[ef].jsonl", "evaluate", unsigned=True),
    Target("journal of verdicts", 25, "judged/calls.jsonl", "judge again"),
    Target("journal of replies", 25, "evaluated/[cv]*.jsonl", "evaluate again"),
    Target("what a report tells of", 50, "story/**/*.json*", "report", unsigned=True),
    Target("pipeline record", 30, "pipeline/hen_jax.json", "pipeline"),
)


def rows(home: Path, count: int, draw: random.Random, only: str) -> list[Row]:
    """One row for each kind of file, with about `count` mutations in all."""
    wanted = [one for one in TARGETS if is_wanted(one.name, only)]
    if not count or not wanted:
        return []
    os.environ |= {"HEN_CACHE": str(home / "cache"), "TMPDIR": str(home / "tmp")}
    (home / "tmp").mkdir()
    verbs = dict.fromkeys(target.verb for target in wanted)
    make((need for verb in verbs for need in OPENINGS[verb].needs), home)
    clean = shutil.copytree(home, home.with_name(home.name + "-clean"))
    try:
        sound = {verb: outcome(verb, home) for verb in verbs}
        total = sum(target.share for target in wanted)
        return [
            _row(home, clean, one, -(-count * one.share // total), sound[one.verb], draw)
            for one in wanted
        ]
    finally:
        shutil.rmtree(clean)


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
        if OUTPUTS in names:  # what it vouches for is told by its own name
            names |= {one.name for one in path.parent.iterdir()}
        end = _judged(home, target, names, sound)
        counted[end if end in ENDS else "fault"] += 1
        if end not in ENDS:
            where = f"{path.relative_to(home)} ({size} bytes) {how}"
            faults.append(f"{target.verb}: {where}: {end}")
            print(f"FAULT {faults[-1]}", flush=True)
    numbers = [counted[name] for name in (*ENDS, "fault")]
    return Row((target.name.strip(), count, OPENINGS[target.verb].shown, *numbers), faults)


def _judged(home: Path, target: Target, names: set[str], sound: Any) -> str:
    """One of `ENDS`, or what went wrong."""
    opening = OPENINGS[target.verb]
    done = type_(words_of(opening.words, home))
    said = done.said
    if done.code is None:
        return f"traceback: {said[-1500:]}"
    if done.code != 0:
        told = [line for line in said.splitlines() if line.startswith("hen: ")]
        named = len(told) == 1 and any(name in told[0] for name in names)
        return "refused" if named else f"exit code {done.code} without its name: {said[-800:]}"
    told = next((line for line in said.splitlines() if any(sign in line for sign in TOLD)), None)
    found, wanted = opening.given(home, done), sound
    if told and "metrics.jsonl" in told:  # the log that is lost is all that may be lost
        found, wanted = (_without_log(one) for one in (found, wanted))
    change = difference(found, wanted)
    if change and target.unsigned:
        return "as they are"
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

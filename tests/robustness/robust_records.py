"""Rows of every schema, votes, replays and verdicts, spoilt and read in thousands."""

import random
from pathlib import Path

import fuzzed
from robust_outcomes import Row, is_wanted


def rows(home: Path, count: int, draw: random.Random, only: str) -> list[Row]:
    """One row for each kind of file, with about `count` spoilt lines in all."""
    every = {**fuzzed.kinds(home), "gguf": fuzzed.gguf_kind(home)}
    wanted = {name: kind for name, kind in every.items() if is_wanted(name, only)}
    if not count or not wanted:
        return []
    each = -(-count // len(wanted))
    return [_row(name, kind, each, home, draw.randrange(2**32)) for name, kind in wanted.items()]


def _row(name: str, kind: fuzzed.Kind, count: int, home: Path, seed: int) -> Row:
    counts, faults = fuzzed.fuzz(name, kind, count, home, seed)
    told = [f"{fault.kind}, seed {seed}: {fault.text}: {fault.what}" for fault in faults]
    for fault in told:
        print(f"FAULT {fault}", flush=True)
    return Row((name, count, counts["read"], counts["refused"], len(faults)), told)

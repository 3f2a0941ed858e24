"""Is anything lost or silently wrong when commands are killed and files are damaged?

    make robustness
    python benchmarks/robustness.py --kills 12 --mutations 60 --seed 3

Kills commands of every verb that writes (`robust_kills.py`), then damages files of every kind and
opens them (`robust_mutations.py`). The table goes to `docs/robustness.md` with `--page`. Every
fault is printed, with what repeats it; the exit code is 1 if there is one. Everything lies in a
temporary folder, and runs at low priority: about fifteen minutes on 2 cores.
"""

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import robust_kills
import robust_mutations
from robust_outcomes import Row

PAGE = """\
# Robustness: what is killed, what is damaged, and what comes of it

<!-- Written by `make robustness`; change benchmarks/robustness.py, not this page. -->

`make robustness` starts commands and kills them with SIGKILL, each at a random moment or just
before a random one of its changes to the file system (a rename, a removal, a new folder, a file
opened for writing), up to four times in a row. Then it gives the same command until it ends.
Parameters, metrics (less times) and exports must be those of a command that nothing happened to,
bit for bit, and no lock, temporary folder or half-written file may be left.

{kills}

Then it damages files: a bit flipped, a file cut short, emptied, overwritten with zeros, lengthened,
deleted or swapped with its neighbour, a JSON field changed, renamed or left out. The verb that
opens the file must name it and end with exit code 2 (*refused*); or say so in a line, build it anew, take
the older checkpoint or go on without a damaged log, and give the same result (*told*); or give the
same result, as it does not need what was damaged (*the same*).

{mutations}

Measured with {versions} in {minutes:.0f} minutes, seed {seed}. Faults: {faults}.

What a user's own folders and files suffer from the verbs that write is in `tests/test_outputs.py`:
9 verbs against 15 kinds of things that lie in the way, and none of them is lost.
"""

KILLS = ("command", "kills", "at random moments", "before a change of files", "ended alike")
MUTATIONS = ("files", "damaged", "opened by", "refused", "told", "the same", "faults")


def table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Markdown, with a row of sums below where there are several rows."""
    numbers = [row.cells for row in rows]
    sums = [
        sum(column) if all(isinstance(cell, int) for cell in column) else ""
        for column in zip(*numbers, strict=True)
    ]
    lines = [header, ["---"] * len(header), *numbers, ["**all**", *sums[1:]]]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def versions() -> str:
    named = ("hen_jax", "jax", "orbax-checkpoint", "transformers", "safetensors", "tokenizers")
    packages = ", ".join(f"{name} {version(name)}" for name in named)
    return f"Python {platform.python_version()} on {platform.system()}, {packages}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=46, help="0: none")
    parser.add_argument("--mutations", type=int, default=240, help="0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="commands or files whose name holds this")
    parser.add_argument("--page", type=Path, help="the page to write")
    chosen = parser.parse_args()
    os.nice(5)
    began, rows, faults = time.monotonic(), [], []
    parts = (
        (robust_kills.rows, chosen.kills, KILLS),
        (robust_mutations.rows, chosen.mutations, MUTATIONS),
    )
    tables = []
    for make, count, header in parts:
        with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
            rows = make(Path(folder), count, random.Random(chosen.seed), chosen.only or "")
        faults += [fault for row in rows for fault in row.faults]
        tables.append(table(header, rows) if rows else "")
        print(tables[-1], flush=True)
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    if chosen.page:
        page = PAGE.format(
            kills=tables[0],
            mutations=tables[1],
            versions=versions(),
            minutes=(time.monotonic() - began) / 60,
            seed=chosen.seed,
            faults=len(faults) or "none",
        )
        chosen.page.write_text(page, encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

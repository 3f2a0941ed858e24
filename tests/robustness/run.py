"""Is anything lost or silently wrong when commands are killed and files are damaged?

    make robustness
    python tests/robustness/run.py --kills 12 --mutations 60 --seed 3

Spoils rows of every schema and reads them (`robust_records.py`), kills runs, exports and imports
(`robust_kills.py`), then damages files of every kind and opens them
(`robust_mutations.py`). With `--page` the tables of `docs/robustness.md` are replaced.
Every fault is printed, with what repeats it; the exit code is 1 if there is one. Everything lies in
a temporary folder and runs at low priority: about fifteen minutes on 2 cores.
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
import robust_records
from robust_outcomes import Row

KILLS = ("command", "kills", "at random moments", "before a change of files", "ended alike")
RECORDS = ("rows", "spoilt", "read", "refused", "faults")
MUTATIONS = ("files", "damaged", "opened by", "refused", "told", "the same", "as they are", "faults")


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
    parser.add_argument("--records", type=int, default=42_000, help="0: none")
    parser.add_argument("--kills", type=int, default=52, help="0: none")
    parser.add_argument("--mutations", type=int, default=920, help="0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="commands or files whose name holds this")
    parser.add_argument("--nice", type=int, default=5, help="how much priority is given up")
    parser.add_argument("--page", type=Path, help="the page whose tables are replaced")
    chosen = parser.parse_args()
    os.nice(chosen.nice)
    parts = (
        ("records", robust_records.rows, chosen.records, RECORDS),
        ("kills", robust_kills.rows, chosen.kills, KILLS),
        ("mutations", robust_mutations.rows, chosen.mutations, MUTATIONS),
    )
    faults = []
    for name, make, count, header in parts:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
            rows = make(Path(folder), count, random.Random(chosen.seed), chosen.only or "")
        if not rows:
            continue
        found = [fault for row in rows for fault in row.faults]
        minutes = (time.monotonic() - began) / 60
        text = (
            f"{table(header, rows)}\n\nMeasured with {versions()} in {minutes:.0f} minutes, seed "
            f"{chosen.seed}. Faults: {len(found) or 'none'}."
        )
        print(text, flush=True)
        if chosen.page:
            replace(chosen.page, name, text)
        faults += found
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


def replace(page: Path, name: str, text: str) -> None:
    """Puts `text` between the two markers of that name in a page."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

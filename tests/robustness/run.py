"""Is anything lost or silently wrong when commands are killed and files are damaged?

    make robustness
    python tests/robustness/run.py --kills 12 --mutations 60 --seed 3

Spoils rows of every schema and reads them (`robust_records.py`), and requests to a server
(`robust_requests.py`), kills commands (`robust_kills.py`), then damages files of every kind and
opens them (`robust_mutations.py`). With `--page` the tables of `docs/robustness.md` are replaced.
Every fault is printed, with what repeats it; the exit code is 1 if there is one. Everything lies in
a temporary folder and runs at low priority: about an hour on 2 cores.
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
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.append(str(Path(__file__).parents[1]))  # what tests share, as pytest has it

import robust_kills
import robust_mutations
import robust_records
import robust_requests
from robust_outcomes import Row

from hen_jax.text.markdown import markdown_table

KILLS = ("command", "kills", "at random moments", "before a change of files", "ended alike")
REQUESTS = ("requests to", "sent", "answered", "refused", "faults")
RECORDS = ("rows", "spoilt", "read", "refused", "faults")
MUTATIONS = (
    "files",
    "damaged",
    "opened by",
    "refused",
    "told",
    "the same",
    "as they are",
    "faults",
)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown, with a row of sums below."""
    sums = [
        sum(column) if all(isinstance(cell, int) for cell in column) else ""
        for column in zip(*rows, strict=True)
    ]
    return "\n".join(markdown_table(header, [*rows, ["**all**", *sums[1:]]]))


def with_earlier(page: Path, name: str, header: Sequence[str], rows: Sequence[Row]) -> list[Any]:
    """Every row of the page's table of that name and these, which take the place of their own."""
    found = {_key(cells): cells for cells in _rows_in(_between(page, name), header)}
    return list((found | {_key(row.cells): row.cells for row in rows}).values())


def _key(cells: Sequence[Any]) -> tuple[Any, ...]:
    """What a row is about: its cells in words."""
    return tuple(cell for cell in cells if isinstance(cell, str) and not cell[0].isdigit())


def _rows_in(text: str, header: Sequence[str]) -> list[tuple[Any, ...]]:
    """The cells of a table of these columns, its sums left out; of another one nothing."""
    lines = [
        line[2:-2].split(" | ")
        for line in text.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    if not lines or tuple(lines[0]) != tuple(header):
        return []
    return [tuple(int(c) if c.isdigit() else c for c in cells) for cells in lines[1:-1]]


def versions() -> str:
    named = ("hen_jax", "jax", "orbax-checkpoint", "transformers", "safetensors", "tokenizers")
    packages = ", ".join(f"{name} {version(name)}" for name in named)
    return f"Python {platform.python_version()} on {platform.system()}, {packages}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=42_000, help="0: none")
    parser.add_argument("--requests", type=int, default=10_000, help="0: none")
    parser.add_argument("--kills", type=int, default=82, help="0: none")
    parser.add_argument("--mutations", type=int, default=920, help="0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names, or parts of them, with commas between")
    parser.add_argument("--nice", type=int, default=5, help="how much priority is given up")
    parser.add_argument(
        "--page", type=Path, help="the page whose tables are replaced; with --only, their rows"
    )
    chosen = parser.parse_args()
    os.nice(chosen.nice)
    parts = (
        ("records", robust_records.rows, chosen.records, RECORDS),
        ("requests", robust_requests.rows, chosen.requests, REQUESTS),
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
        told = [row.cells for row in rows]
        print(f"{table(header, told)}\n\n{minutes:.1f} minutes", flush=True)
        if chosen.page:
            if chosen.only:
                told = with_earlier(chosen.page, name, header, rows)
            note = f"Measured with {versions()}, seed {chosen.seed}."
            replace(chosen.page, name, f"{table(header, told)}\n\n{note}")
        faults += found
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


def replace(page: Path, name: str, text: str) -> None:
    """Puts `text` between the two markers of that name in a page."""
    begin = f"<!-- {name}:begin -->"
    old, new = f"{begin}{_between(page, name)}", f"{begin}\n{text}\n"
    page.write_text(page.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def _between(page: Path, name: str) -> str:
    _, rest = page.read_text(encoding="utf-8").split(f"<!-- {name}:begin -->")
    return rest.split(f"<!-- {name}:end -->")[0]


if __name__ == "__main__":
    sys.exit(main())

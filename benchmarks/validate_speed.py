"""How long, and in how much memory, `hen data validate` reads a file of small records.

    python benchmarks/validate_speed.py --records 1000000

writes that many records, each a question and an answer of a few words, once without ids and once
with them, and gives the command each file. Wall and CPU seconds and peak memory are those of the
process, its start included. Expected, of a million: at most 30 s and 300 MB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write_records(path: Path, count: int, named: bool) -> None:
    """Conversations of two turns that all differ, as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            said = (f"It rains for day {number}.", "Stay in; I will bring soup.")
            turns = [
                {"role": who, "content": text}
                for who, text in zip(("user", "assistant"), said, strict=True)
            ]
            name = {"id": f"r{number}"} if named else {}
            file.write(json.dumps(name | {"messages": turns}) + "\n")


def measure(path: Path) -> dict[str, float]:
    """What one `hen data validate` of the file took."""
    words = ["data", "validate", str(path), "--schema=messages"]
    began = time.monotonic()
    with (path.parent / "said").open("w+") as said:
        process = subprocess.Popen([sys.executable, "-m", "hen_jax.cli", *words], stdout=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        said.seek(0)
        text = said.read().strip()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or ", 0 problems" not in text:
        raise SystemExit(f"exit code {process.returncode}: {text}")
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="validate-") as folder:
        for what, named in (("without ids", False), ("with ids", True)):
            path = Path(folder) / "records.jsonl"
            write_records(path, chosen.records, named)
            print(f"{chosen.records} records {what}: {json.dumps(measure(path))}", flush=True)


if __name__ == "__main__":
    main()

"""What a benchmark reads off its own process, and how it runs another one. Standard library only."""

import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def cpu_seconds() -> float:
    """Seconds of computing by all threads of this process so far; blind to other processes."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_bytes() -> int:
    """The most memory this process ever held (Linux).

    From `/proc`, not from `ru_maxrss`: that one starts at what the parent held when it forked.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this kernel does not tell the peak memory (VmHWM in /proc/self/status)")


def in_child(command: Sequence[str], task: dict) -> dict:
    """The JSON that `command TASK.json RESULT.json` writes, run as a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "task.json"), Path(folder, "result.json")
        given.write_text(json.dumps(task), encoding="utf-8")
        load = os.getloadavg()[0]
        done = subprocess.run([*command, str(given), str(result)], check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {done.returncode}")
        return json.loads(result.read_text(encoding="utf-8")) | {"load_before": load}

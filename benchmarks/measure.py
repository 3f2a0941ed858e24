"""What a benchmark reads off its own process, and how it runs another; standard library only."""

import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROBE = (1024, 576, 1536)
"""`[a, b] x [b, c]` of the measured matmul rate: SmolLM2's mlp on 1024 tokens."""

IGNORED = -100
"""The label of a token that does not train, as torch has it."""


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


def in_child(command: Sequence[str], task: dict, *, may_not_fit: bool = False) -> dict:
    """The JSON that `command TASK.json RESULT.json` writes, run as a fresh process.

    With `may_not_fit`, `{}` for one that the system killed, as it does where memory runs out.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "task.json"), Path(folder, "result.json")
        given.write_text(json.dumps(task), encoding="utf-8")
        load = os.getloadavg()[0]
        done = subprocess.run([*command, str(given), str(result)], check=False)
        if may_not_fit and done.returncode == -signal.SIGKILL:
            return {}
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {done.returncode}")
        return json.loads(result.read_text(encoding="utf-8")) | {"load_before": load}


def best_rate(product: Callable[[], object], rounds: int = 20) -> float:
    """Float operations per second of `product`, a float32 product of `PROBE`; the best round."""
    product()
    best, calls = float("inf"), 8
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            product()
        best = min(best, time.perf_counter() - start)
    a, b, c = PROBE
    return calls * 2 * a * b * c / best

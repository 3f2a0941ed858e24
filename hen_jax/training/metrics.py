"""Where the numbers of a run go: a progress bar, JSON lines and TensorBoard."""

import json
import math
import os
import time
from pathlib import Path

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from hen_jax.core.files import staged_file
from hen_jax.core.types import Mean

FILE = "metrics.jsonl"


def fetch(metrics: dict[str, Mean]) -> dict[str, float]:
    """The means as Python numbers; waits for the devices."""
    host = jax.device_get(metrics)
    return {name: float(mean.total) / max(float(mean.count), 1.0) for name, mean in host.items()}


class MetricLog:
    """The open files of a run's metrics; to be used in `contextlib.closing`.

    On resumption at step `start`, lines of later steps (written by a process that was killed after
    its last checkpoint) are dropped, so that every step stands once.
    """

    def __init__(self, folder: Path, start: int, steps: int, *, quiet: bool = False):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        if path.exists():
            _keep_until(path, start)
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=quiet or None)
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        self._board.close()
        self._bar.close()

    def train(self, step: int, values: dict[str, float], tokens: int) -> None:
        """Writes the metrics of one update; `tokens` is how many the batch held."""
        now = time.perf_counter()
        values = values | {"tokens_per_second": tokens / (now - self._clock)}
        self._clock = now
        self._write(step, "train", values)
        self._bar.set_postfix_str(
            f"loss {values['loss']:.3f}, {values['tokens_per_second']:.0f} tokens/s"
        )
        self._bar.update()

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics of one evaluation, whose time counts for no step's speed."""
        self._write(step, "eval", values)
        self._bar.write(f"step {step}: held-out loss {values['loss']:.4f}")
        self._clock = time.perf_counter()

    def _write(self, step: int, kind: str, values: dict[str, float]) -> None:
        # JSON has no NaN: a reader of the file should see null, not fail.
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        self._lines.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)


def read_metrics(folder: Path) -> list[dict[str, float | str | None]]:
    """The lines of a run's metrics; a last line cut short by a kill is left out."""
    return _whole_lines(folder / FILE)


def _whole_lines(path: Path) -> list[dict[str, float | str | None]]:
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


def _keep_until(path: Path, step: int) -> None:
    kept = [line for line in _whole_lines(path) if int(line["step"] or 0) <= step]
    with staged_file(path) as staged, staged.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in kept)
        file.flush()
        os.fsync(file.fileno())

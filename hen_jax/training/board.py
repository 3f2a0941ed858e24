"""Scalars for TensorBoard, written where they are given.

tensorboardX's own `SummaryWriter` writes in a thread: when the disk is full that thread ends with a
traceback, and the run waits for it for ever. Here the error comes to the caller.
"""

import socket
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

FLUSH_SECONDS = 30.0
"""How old what is on the disk may be: each flush waits for the disk."""


class Board:
    """The event file of one attempt at a run; for `contextlib.closing`."""

    def __init__(self, folder: Path, start: int):
        """Steps from `start` on, which an earlier attempt may have written, are hidden."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._records = RecordWriter(str(folder / name))
        self._flushed = time.monotonic()
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=start, session_log=SessionLog(status=SessionLog.START)))

    def add(self, name: str, value: float, step: int) -> None:
        """Adds one number. Raises `OSError` when the disk is full."""
        self._write(Event(step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._records.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is left and closes the file."""
        self._records.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

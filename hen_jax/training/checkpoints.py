"""Checkpoints: state, place in the data and run record, saved together or not at all (orbax)."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from hen_jax.core.errors import InputError
from hen_jax.steps.state import State

Record = dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in `folder`; to be used in `contextlib.closing`.

    A checkpoint holds the state, the data iterator's state and the run record. Orbax writes it
    under a temporary name and renames it when it is whole, so one that a kill or a full disk cut
    short is never taken for a checkpoint, and the older ones stay.
    """

    def __init__(self, folder: Path, keep: int, *, asynchronous: bool = True):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=asynchronous, create=True
        )
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def close(self) -> None:
        """Waits for writes to end."""
        self._manager.close()

    def latest(self) -> int | None:
        """The newest step there is a whole checkpoint of."""
        return self._manager.latest_step()

    def save(self, step: int, state: State, data: Any, record: Record) -> None:
        """Saves, in the background when asynchronous; `data` is JSON."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_plain(state)),
                data=ocp.args.JsonSave({"iterator": data}),
                record=ocp.args.JsonSave(record),
            ),
        )

    def restore(self, like: State) -> tuple[State, Any]:
        """The newest state, on the shardings of `like`, and the data iterator's state."""
        step = self._require_latest()
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_plain(like)), data=ocp.args.JsonRestore()
            ),
        )
        plain: State = restored["state"]
        state = plain._replace(key=jax.random.wrap_key_data(plain.key))
        return state, restored["data"]["iterator"]

    def record(self) -> Record:
        """The run record of the newest checkpoint."""
        step = self._require_latest()
        return self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))[
            "record"
        ]

    def params(self, like: Any) -> Any:
        """Only the trained parameters of the newest checkpoint, on the shardings of `like`."""
        step = self._require_latest()
        item = {"params": like}
        wanted = ocp.args.PyTreeRestore(
            item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        restored = self._manager.restore(step, args=ocp.args.Composite(state=wanted))
        return restored["state"]["params"]

    def _require_latest(self) -> int:
        step = self.latest()
        if step is None:
            raise InputError(f"{self._folder} holds no checkpoint; run `hen run` first")
        return step


def _plain(state: State) -> State:
    """The state with its key as numbers, which every checkpoint format can hold."""
    return state._replace(key=jax.random.key_data(state.key))

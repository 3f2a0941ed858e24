"""Checkpoints: state, place in the data and run record, saved together or not at all (orbax)."""

import errno
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from hen_jax.core.errors import InputError
from hen_jax.core.records import Record
from hen_jax.core.types import Tree
from hen_jax.steps.state import State
from hen_jax.training.manifests import find_damage, write_manifest
from hen_jax.training.processes import everywhere, from_primary, is_primary, meet
from hen_jax.training.quiet import hush


class Checkpoints:
    """The checkpoints of one run, each in a folder named by its step; for `contextlib.closing`.

    A checkpoint holds the state, the data iterator's state, the run record and a manifest of
    checksums. Orbax writes it under a temporary name and renames it when it is whole, so one that
    a kill or a full disk cut short is never taken for a checkpoint, and the older ones stay.

    Orbax's `CheckpointManager` is not used: it asks the preemption service about old steps, in the
    background, which can make the processes of a run disagree where to stop.
    """

    def __init__(self, folder: Path, keep: int, *, asynchronous: bool = True):
        self._folder, self._keep, self._asynchronous = folder.absolute(), keep, asynchronous
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        self._saving: int | None = None
        self._sound: set[int] = set()  # steps whose files were read and found to be as written
        self._damage: dict[int, str] = {}
        hush()

    def close(self) -> None:
        """Waits for writes to end."""
        self._checkpointer.close()

    def wait(self) -> None:
        """Returns when the last save is on disk; raises what went wrong with it."""
        self._checkpointer.wait_until_finished()

    def latest(self) -> int | None:
        """The newest step whose checkpoint is whole and undamaged; says which are not, and why.

        Raises:
          InputError: there are checkpoints, and every one is damaged.
        """
        steps = saved_steps(self._folder)
        # The primary's list counts: a shared file system may show others an older one.
        count = from_primary(len(steps))
        for place in range(count):
            step = from_primary(steps[place] if is_primary() else 0)
            if self._is_sound(step):
                return step
        if count:
            raise InputError(
                f"every checkpoint in {self._folder} is damaged ({self._damages()}); put a copy "
                "in its place, or remove the folder to start over"
            )
        return None

    def save(self, step: int, state: State, data: Any, record: Record) -> None:
        """Saves, in the background when asynchronous; `data` is JSON."""
        self.wait()
        plain = _plain(state)
        if is_primary():
            _require_space(self._folder, plain)
        self._saving = step
        self._checkpointer.save(
            self._folder / str(step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(plain),
                data=ocp.args.JsonSave({"iterator": data}),
                record=ocp.args.JsonSave(record),
            ),
        )
        self._sound.add(step)
        if not self._asynchronous:
            self.wait()

    def restore(self, like: State) -> tuple[State, Any]:
        """The newest state, on the shardings of `like`, and the data iterator's state.

        `like` may be abstract.

        Raises:
          InputError: the checkpoint holds other arrays, as one of an older hen_jax may.
        """
        try:
            restored = self._read(
                state=ocp.args.StandardRestore(_plain(like)), data=ocp.args.JsonRestore()
            )
        except ValueError as error:
            raise InputError(
                f"{self._folder / str(self.latest())} holds other arrays than this run trains; it "
                "was written by another version of hen_jax, or for other settings: give another "
                "--workdir, or go on with the version that wrote it"
            ) from error
        state = State(**restored["state"])
        return state._replace(key=jax.random.wrap_key_data(state.key)), restored["data"]["iterator"]

    def record(self) -> Record:
        """The run record of the newest checkpoint."""
        return self._read(record=ocp.args.JsonRestore())["record"]

    def params(self, like: Any) -> Any:
        """Only the trained parameters of the newest checkpoint, on the shardings of `like`.

        Raises:
          InputError: there is none, or it is damaged: an older one is not what is asked for.
        """
        latest = self.latest()
        if self._damage:
            raise InputError(
                f"the newest checkpoint in {self._folder} is damaged ({self._damages()}); the run "
                f"goes on from step {latest} if it is started again, and makes it anew"
            )
        item = {"params": like}
        wanted = ocp.args.PyTreeRestore(
            item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        return self._read(state=wanted)["state"]["params"]

    def clear_away(self) -> None:
        """Removes what a killed run left half written, and moves damaged checkpoints to `damaged/`.

        Their steps are about to be saved anew; whoever wants to look at them finds them there.
        """
        newest = self.latest()
        if is_primary() and self._folder.is_dir():
            for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path)
            for step in self._damage.keys() if newest is not None else ():
                aside = self._folder / "damaged" / str(step)
                shutil.rmtree(aside, ignore_errors=True)
                aside.parent.mkdir(exist_ok=True)
                (self._folder / str(step)).replace(aside)
        self._damage.clear()
        meet("cleared away")

    def _read(self, **items: ocp.args.CheckpointArgs) -> Any:
        step = self.latest()
        if step is None:
            raise InputError(f"{self._folder} holds no checkpoint; run `hen run` first")
        return self._checkpointer.restore(
            self._folder / str(step), args=ocp.args.Composite(**items)
        )

    def _is_sound(self, step: int) -> bool:
        if step in self._sound:
            return True
        folder = self._folder / str(step)
        damage = find_damage(folder, jax.process_index(), jax.process_count())
        if damage is not None and step not in self._damage:
            print(f"checkpoint {step} is damaged, and not used: {damage}", file=sys.stderr)
        if everywhere(damage is None):
            self._sound.add(step)
            return True
        self._damage[step] = damage or "as another process reports"
        return False

    def _damages(self) -> str:
        return "; ".join(f"{step}: {damage}" for step, damage in self._damage.items())

    def _seal(self) -> None:
        """Just before the rename, on the primary: adds the manifest, and makes room.

        One older checkpoint stays in any case: the rename may still fail.
        """
        (staged,) = self._folder.glob(f"{self._saving}.*")
        write_manifest(staged)
        for step in saved_steps(self._folder)[max(1, self._keep - 1) :]:
            shutil.rmtree(self._folder / str(step))


def _require_space(folder: Path, state: Tree) -> None:
    """Raises `OSError` before a write that the disk cannot take: half of it would fill the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    disk = shutil.disk_usage(folder)
    if disk.total > 0 and disk.free < needed:  # some network file systems do not say
        raise OSError(
            errno.ENOSPC,
            f"No space left on device: {needed:,} bytes to write",
            str(folder),
        )


def saved_steps(folder: Path) -> list[int]:
    """All saved steps in the folder of a run's checkpoints, newest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (int(path.name) for path in folder.iterdir() if path.name.isdigit()), reverse=True
    )


def _plain(state: State) -> dict[str, Any]:
    """The state by field, with its key as numbers, which every checkpoint format can hold.

    No memory is left out, not empty: so it is with the checkpoints of before there was any.
    """
    key = state.key
    if isinstance(key, jax.ShapeDtypeStruct):
        numbers = jax.eval_shape(jax.random.key_data, key)
        key = jax.ShapeDtypeStruct(numbers.shape, numbers.dtype, sharding=key.sharding)
    else:
        key = jax.random.key_data(key)
    fields = state._replace(key=key)._asdict()
    return {
        name: tree for name, tree in fields.items() if name != "memory" or jax.tree.leaves(tree)
    }

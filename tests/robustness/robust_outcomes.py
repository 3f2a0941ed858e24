"""What two commands left behind, so that it can be compared."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TIMES = re.compile(r"second|mfu|memory|goodput")
"""Metrics that tell time or memory, and not what was computed."""

LEFT_OVER = re.compile(r"\.part$|\.lock$|orbax-checkpoint-tmp|\.tmp$|/damaged/|\.old$")


class Row(NamedTuple):
    """A line of a table, and what went wrong in it."""

    cells: tuple[Any, ...]
    faults: list[str]


def is_wanted(name: str, only: str) -> bool:
    """Whether it holds one of the texts, with commas between them, of `--only`."""
    return any(one in name for one in only.split(","))


def files(folder: Path) -> dict[str, str]:
    """SHA-256 by path of what `hen import` and `hen export` wrote."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def trained(workdir: Path) -> dict[str, Any]:
    """Every leaf of the newest checkpoint by checksum, and all metrics that tell no time."""
    import jax
    import orbax.checkpoint as ocp

    from hen_jax.core.trees import flatten
    from hen_jax.training.checkpoints import Checkpoints
    from hen_jax.training.metrics import read_metrics

    with closing(Checkpoints(workdir / "checkpoints", 2)) as checkpoints:
        step = checkpoints.latest()
    saved = (workdir / "checkpoints" / str(step) / "state").absolute()
    with ocp.PyTreeCheckpointer() as reader:
        # As numpy: the devices that it was saved from may not be here.
        tree = reader.metadata(saved).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        leaves = flatten(reader.restore(saved, restore_args=plain))
    found: dict[str, Any] = {path: _digest(leaf) for path, leaf in leaves.items()}
    return found | {"step": step, "metrics": [_timeless(line) for line in read_metrics(workdir)]}


def _digest(leaf: Any) -> str:
    array = np.asarray(leaf)
    return f"{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def _timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not TIMES.search(name)}


def names(folder: Path) -> set[str]:
    """What lies in a folder, less the names that are drawn anew by every run."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return {re.sub(r"(checkpoints/\d+|tensorboard|cache/xla)/.*", r"\1", name) for name in found}


def difference(ours: Any, theirs: Any) -> str | None:
    """The first thing that is not the same; None where all is."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                return f"{key}: {_short(ours.get(key))}, not {_short(theirs.get(key))}"
        return None
    return None if ours == theirs else f"{_short(ours)}, not {_short(theirs)}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 300 else f"{text[:300]}..."

"""The reference policy of a run: which one it is, and its log-probabilities where they are stored.

It is what the run starts from: the base, or the base with the adapter of `config.start`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hen_jax.core.checksums import file_sha256, text_sha256
from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json, staged_file, write_json
from hen_jax.core.mesh import replicated
from hen_jax.core.types import Array, Tree
from hen_jax.data.comparisons import Compared
from hen_jax.data.preference_batches import PreferenceBatch
from hen_jax.runs.stage import Job
from hen_jax.training.checkpoints import saved_steps
from hen_jax.training.manifests import MANIFEST
from hen_jax.training.placement import to_devices
from hen_jax.training.processes import is_primary, primary_first

IDENTITY, TABLE = "reference.json", "reference.npz"
"""In the work directory of a run."""

Sums = Callable[[Tree, Tree, PreferenceBatch], Array]
"""`sums(params, frozen, batch)`: `[B, K, J]`, as `steps.reply_scores.reply_sums`."""


def identity(job: Job) -> dict[str, Any]:
    """What says which reference it is: the base's weights, and the checkpoint started from."""
    start = None
    if job.settings.start is not None:
        folder = Path(job.settings.start) / "checkpoints"
        step = saved_steps(folder)[0]
        start = {"step": step, "manifest_sha256": file_sha256(folder / str(step) / MANIFEST)}
    return {"weights_sha256": job.record["base"]["weights_sha256"], "start": start}


def require_same_reference(job: Job) -> None:
    """Writes down which reference the run has, or finds that it is still the same.

    Raises:
      InputError: the run in `config.start` has another newest checkpoint than when this one began.
    """
    if job.settings.preference.objective.start is not None:
        hold_reference(job)


def hold_reference(job: Job) -> None:
    """`require_same_reference` of any stage.

    Raises:
      InputError: as there.
    """
    path, now = job.workdir / IDENTITY, identity(job)
    if not path.exists():
        if is_primary():
            write_json(path, now)
    elif (before := read_json(path)) != now:
        raise InputError(
            f"config.start: {job.settings.start} is not what this run began with, which is its "
            f"reference ({path} says {json.dumps(before)}, there is {json.dumps(now)}); put that "
            "checkpoint back, or give another --workdir"
        )


def score_all(job: Job, sums: Sums, batches: Sequence[PreferenceBatch]) -> np.ndarray:
    """`[rows, K, J]` under what the run starts from; `batches` hold this process's rows."""
    put = to_devices(job.mesh)
    scored = jax.jit(sums, out_shardings=replicated(job.mesh))
    found = [np.asarray(scored(job.trainable, job.frozen, put(batch))) for batch in batches]
    return np.concatenate(found)


def stored_table(
    job: Job, sums: Sums, rows: Sequence[Compared], batches: Callable[[], Sequence[PreferenceBatch]]
) -> np.ndarray:
    """`[rows, K, J]`: the reference's log-probabilities, computed once and then read.

    Raises:
      InputError: those beside the run are of another reference, or of other data.
    """
    path, key = job.workdir / TABLE, _key(job, rows)

    def read() -> np.ndarray:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                raise InputError(
                    f"{path}: computed with another reference, or for other data; remove it, and "
                    "it is computed anew"
                )
            return stored["log_probs"]

    if primary_first(path.exists):
        return primary_first(read)
    table = score_all(job, sums, batches())[: len(rows)]
    if is_primary():
        with staged_file(path) as staged, staged.open("wb") as file:
            np.savez(file, key=np.asarray(key), log_probs=table)
    return table


def _key(job: Job, rows: Sequence[Compared]) -> str:
    """Of the reference, and of every token and what it counts for."""
    texts = [
        part.tobytes().hex()
        for row in rows
        for parts in zip(row.documents, row.targets, row.weights, strict=True)
        for part in parts
    ]
    said = {"reference": identity(job), "tail": job.settings.preference.values.tail}
    return text_sha256(json.dumps(said, sort_keys=True) + "\n".join(texts))

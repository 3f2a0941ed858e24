"""Rows that must divide over devices, refused before anything is read."""

import math
from collections.abc import Sequence

from jax.sharding import Mesh

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import BATCH, rows_over


def check_batch(batch_size: int, microbatches: int, mesh: Mesh) -> None:
    """Refuses a batch whose rows do not divide over the devices in each of the microbatches.

    2 rows on 8 devices say "config.data.batch_size is 2; it must be a multiple of 8 (data=8 x
    fsdp=1 x microbatches=1); give --config.data.batch_size=8, or ...".

    Raises:
      InputError: names the fields, the numbers and the nearest ones that work.
    """
    spread = rows_over(mesh)
    parts = spread * microbatches
    if batch_size % parts == 0:
        return
    larger = math.ceil(batch_size / parts) * parts
    remedies = [f"--config.data.batch_size={larger}"]
    fewer = [n for n in range(1, microbatches) if batch_size % (spread * n) == 0]
    if fewer:
        remedies.append(f"--config.microbatches={fewer[-1]}")
    elif batch_size < spread:
        remedies.append(f"at most {batch_size} devices along config.mesh.data x config.mesh.fsdp")
    raise InputError(
        f"config.data.batch_size is {batch_size}; it must be a multiple of {parts} "
        f"({_sizes(mesh)} x microbatches={microbatches}); give {', or '.join(remedies)}"
    )


def check_episode(
    tasks: int, support_rows: int, query_rows: int, task_axis: str | None, mesh: Mesh
) -> None:
    """Refuses episodes whose tasks or rows do not divide over the mesh axes that hold them.

    Raises:
      InputError: names the field, the numbers and the nearest one that works.
    """
    if task_axis is not None and tasks % mesh.shape[task_axis]:
        raise InputError(
            f"config.tasks has {tasks} tasks, which config.episode.task_axis={task_axis!r} cannot "
            f"spread over {mesh.shape[task_axis]} devices; give "
            "--config.episode.task_axis=None, or a config.mesh whose axis divides them"
        )
    axes = [axis for axis in BATCH if axis != task_axis]
    spread = math.prod(mesh.shape[axis] for axis in axes)
    for name, rows in (("support_rows", support_rows), ("query_rows", query_rows)):
        if rows % spread:
            raise InputError(
                f"config.episode.{name} is {rows}; it must be a multiple of {spread} "
                f"({_sizes(mesh, axes)}); give --config.episode.{name}="
                f"{math.ceil(rows / spread) * spread}, or fewer devices along {_fields(axes)}"
            )


def _sizes(mesh: Mesh, axes: Sequence[str] = BATCH) -> str:
    return " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)


def _fields(axes: Sequence[str]) -> str:
    return " x ".join(f"config.mesh.{axis}" for axis in axes)

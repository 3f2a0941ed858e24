"""Which processes make up a run, read off the environment; pure, and jax is not needed."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from hen_jax.core.errors import InputError

EXPLICIT = ("HEN_COORDINATOR", "HEN_NUM_PROCESSES", "HEN_PROCESS_ID")
"""Set by a launch recipe: `host:port` of process 0, how many processes, which one this is."""


class Cluster(NamedTuple):
    """How this process joins the others; `coordinator` None leaves it to jax's own detection."""

    name: str  # what it was read off
    coordinator: str | None = None  # host:port of process 0
    processes: int | None = None
    index: int | None = None
    devices: list[int] | None = None  # of those this process sees; None: all


def find_cluster(environ: Mapping[str, str]) -> Cluster | None:
    """The cluster that the environment describes; None for a process on its own.

    In order: the three variables of `EXPLICIT` (`HEN_COORDINATOR=auto` alone asks jax, as on a TPU
    VM), a SLURM step of several tasks, the TPU hosts of a GKE job, Open MPI.

    Raises:
      InputError: a variable is missing, or is not what it should be.
    """
    if any(name in environ for name in EXPLICIT):
        return _explicit(environ)
    if _number(environ, "SLURM_STEP_NUM_TASKS", 1) > 1:
        return _slurm(environ)
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES", "")
    if "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in environ:
        return Cluster("TPU hosts of a GKE job")
    if _number(environ, "OMPI_COMM_WORLD_SIZE", 1) > 1:
        return Cluster("Open MPI")
    return None


def _explicit(environ: Mapping[str, str]) -> Cluster:
    coordinator = environ.get("HEN_COORDINATOR", "")
    if coordinator == "auto":
        return Cluster("HEN_COORDINATOR=auto")
    missing = [name for name in EXPLICIT if not environ.get(name)]
    if missing:
        raise InputError(f"{missing[0]} is not set; set {', '.join(EXPLICIT)}, or none of them")
    found = re.fullmatch(r".+:(\d+)", coordinator)
    if found is None or not 0 < int(found[1]) < 2**16:
        raise InputError(f"HEN_COORDINATOR is {coordinator!r}; give host:port, or auto")
    count, index = (_number(environ, name, 0) for name in EXPLICIT[1:])
    if not 0 <= index < count:
        raise InputError(f"HEN_PROCESS_ID is {index}; allowed: 0 to {count - 1}")
    return Cluster("HEN_COORDINATOR", coordinator, count, index)


def _slurm(environ: Mapping[str, str]) -> Cluster:
    """A SLURM step, one process per GPU or one per node.

    jax's own detection gives every process one device, and so loses all but the first GPU of a
    node with one process.
    """
    needed = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    missing = [name for name in needed if name not in environ]
    if missing:
        raise InputError(f"{missing[0]} is not set in a SLURM step; start hen with srun")
    # As jax does: a port of its own for each job, in the ephemeral range.
    port = _number(environ, "SLURM_JOB_ID", 0) % 2**12 + 2**16 - 2**12
    return Cluster(
        "SLURM",
        f"{first_host(environ['SLURM_STEP_NODELIST'])}:{port}",
        _number(environ, "SLURM_STEP_NUM_TASKS", 1),
        _number(environ, "SLURM_PROCID", 0),
        _slurm_devices(environ),
    )


def _slurm_devices(environ: Mapping[str, str]) -> list[int] | None:
    """The GPUs of this task where it sees those of other tasks of its node too; None: all it sees.

    Raises:
      InputError: the tasks of the node would share a GPU, or get unequal numbers of them.
    """
    tasks = _tasks_on_node(environ)
    visible = [name for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if tasks == 1 or not visible or _bound(environ, len(visible)):
        return None
    if len(visible) % tasks:
        what = "share" if len(visible) < tasks else "get unequal numbers of"
        raise InputError(
            f"the {tasks} tasks of this SLURM node would {what} its {len(visible)} GPUs; give srun "
            "--ntasks-per-node that divides the GPUs of a node, or --gpus-per-task"
        )
    each, local = len(visible) // tasks, _number(environ, "SLURM_LOCALID", 0)
    if local >= tasks:
        raise InputError(f"SLURM_LOCALID is {local}, but the node has {tasks} tasks")
    return list(range(local * each, (local + 1) * each))


def _bound(environ: Mapping[str, str], visible: int) -> bool:
    """Whether SLURM shows this task its own GPUs only."""
    per_task = environ.get("SLURM_GPUS_PER_TASK", "").rpartition(":")[2]  # of "2", or "a100:2"
    if per_task == str(visible):
        return True
    if "SLURM_GPUS_ON_NODE" in environ:
        return visible < _number(environ, "SLURM_GPUS_ON_NODE", 0)
    return visible == 1 and not per_task


def _tasks_on_node(environ: Mapping[str, str]) -> int:
    """Tasks of this run on this node, from a list such as `4(x2),3`: 4 on two nodes, 3 on one."""
    name = "SLURM_STEP_TASKS_PER_NODE"
    if name not in environ:
        name = "SLURM_TASKS_PER_NODE"
    text = environ.get(name, "1")
    each: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if found is None or int(found[1]) == 0:
            raise InputError(f"{name} is {text!r}; it must be such as 4(x2),3")
        each += [int(found[1])] * int(found[2] or 1)
    if len(set(each)) == 1:
        return each[0]
    node = _number(environ, "SLURM_NODEID", len(each))
    if node >= len(each):
        raise InputError(
            f"SLURM_NODEID is {environ.get('SLURM_NODEID', 'not set')}, but {name} is {text!r}; "
            "start hen with srun"
        )
    return each[node]


def first_host(nodes: str) -> str:
    """The first host of a SLURM list: `gpu[03-07,12]-ib.example,login` gives `gpu03-ib.example`."""
    found = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes)  # a comma in brackets parts no hosts
    host = re.sub(r"\[(\w+)[^\]]*\]", r"\1", found[0]) if found else ""
    if not re.fullmatch(r"[\w.-]+", host):
        raise InputError(f"SLURM_STEP_NODELIST is {nodes!r}; that is no list of hosts")
    return host


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"{name} is {text!r}; it must be a number")
    return int(text)

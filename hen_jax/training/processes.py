"""Several processes as one run: joining, agreeing, sharing out rows, ending together."""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from hen_jax.core.errors import LOST, STOPPED, InputError, StoppedEarlyError, StoppedError, told
from hen_jax.core.mesh import batch_sharding
from hen_jax.training.clusters import Cluster
from hen_jax.training.rendezvous import bind_address, join_seconds, meet_all
from hen_jax.training.watchdog import lost_after

HEARTBEAT_SECONDS = 30
"""After so long without a sign of life a process counts as dead, and jax ends the others."""

_Result = TypeVar("_Result")

_joined = threading.Event()
"""Set once this process is connected with the others."""


def join(cluster: Cluster) -> None:
    """Connects this process with the others of its cluster; before any other use of jax.

    Raises:
      InputError: the port of process 0 is taken, or the processes differ on their number.
      LostError: some did not come within `HEN_JOIN_SECONDS`; names them.
    """
    seconds = join_seconds(os.environ)
    meet_all(cluster, seconds)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    with lost_after(
        seconds,
        f"{cluster.name}: the processes of this run did not connect within {seconds:g} s "
        "(HEN_JOIN_SECONDS); look whether all were started, then give the same command again",
    ):
        jax.distributed.initialize(
            coordinator_address=cluster.coordinator,
            num_processes=cluster.processes,
            process_id=cluster.index,
            local_device_ids=cluster.devices,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            cluster_detection_method=None if cluster.coordinator is None else "deactivate",
            coordinator_bind_address=bind_address(cluster.coordinator),
        )
    _joined.set()


def is_primary() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def primary_first(act: Callable[[], _Result]) -> _Result:
    """`act()` on the primary, then on the others: they find its files already there."""
    if is_primary():
        result = act()
        meet("primary first")
        return result
    meet("primary first")
    return act()


def meet(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_primary(number: int) -> int:
    """The primary's number, on every process."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.int32)))


def everywhere(holds: bool) -> bool:
    """Whether `holds` on every process."""
    if jax.process_count() == 1:
        return holds
    return bool(multihost_utils.process_allgather(np.asarray(holds)).all())


class Share(NamedTuple):
    """Which part of the rows of each batch a process loads: part `index` of `count` equal ones."""

    index: int
    count: int


def row_share(mesh: Mesh) -> Share:
    """This process's share of the rows.

    Raises:
      InputError: the rows of two processes overlap without being the same.
    """
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    held: dict[int, set[int]] = {}
    for device, (part, *_) in batch_sharding(mesh).devices_indices_map((rows,)).items():
        start, stop, _ = part.indices(rows)
        held.setdefault(device.process_index, set()).update(range(start, stop))
    return share_of(held, jax.process_index())


def share_of(held: Mapping[int, set[int]], process: int) -> Share:
    """The share of `process`, when process `p` holds the rows `held[p]`.

    Processes that hold the same rows, as parts of one `tensor` axis, load the same share:
    `{0: {0}, 1: {0}, 2: {1}, 3: {1}}` gives the shares 0, 0, 1, 1 of 2.

    Raises:
      InputError: as `row_share`.
    """
    shares = sorted({tuple(sorted(part)) for part in held.values()})
    if sum(map(len, shares)) != len(set().union(*shares)) or len(set(map(len, shares))) > 1:
        raise InputError(
            f"config.mesh gives the {len(held)} processes rows {shares} that overlap in part; "
            "choose data x fsdp so that it is a multiple of the processes, or divides them"
        )
    return Share(shares.index(tuple(sorted(held[process]))), len(shares))


_STOP, _GONE = "hen_jax/stop", "hen_jax/gone"
"""What processes tell each other through the service of process 0."""


def ask_others() -> None:
    """Asks the other processes, if there are any, to stop as well: see `asked_by_others`."""
    if _joined.is_set():
        _client().key_value_set(f"{_STOP}/asked", "", allow_overwrite=True)


def asked_by_others() -> bool:
    """Whether a process called `ask_others`."""
    return _joined.is_set() and len(_client().key_value_dir_get(_STOP)) > 0


def leave(code: int) -> None:
    """Ends this process at once. Process 0, whose service the others need, lets them go first."""
    if _among_several():
        _last_if_primary()
    sys.stdout.flush()
    os._exit(code)


def _last_if_primary(seconds: float = 15.0) -> None:
    if not is_primary():
        _client().key_value_set(f"{_GONE}/{jax.process_index()}", "", allow_overwrite=True)
        return
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if len(_client().key_value_dir_get(_GONE)) == jax.process_count() - 1:
            time.sleep(0.2)  # between telling and going
            return
        time.sleep(0.1)


def _client():
    return ocp.multihost.get_jax_distributed_client()


@contextmanager
def ending_together() -> Iterator[None]:
    """Among several processes, an error within ends this process at once, with a clear message.

    Leaving in the usual way would first wait, for minutes, for processes that themselves wait for
    this one. The others notice by its silence and end too.
    """
    try:
        yield
    except StoppedEarlyError as error:
        if not _among_several():
            raise
        print(f"{_who()}: {error}", file=sys.stderr, flush=True)
        leave(STOPPED)
    except StoppedError:
        raise  # all stop at the same step
    except (Exception, KeyboardInterrupt) as error:
        if not _among_several():
            raise
        _leave(error)


def _among_several() -> bool:
    return _joined.is_set() and jax.process_count() > 1


def _who() -> str:
    return f"hen: process {jax.process_index()} of {jax.process_count()}"


def _leave(error: Exception | KeyboardInterrupt) -> None:
    expected = told(error)
    if expected is not None:
        code, message = expected.code, f"{_who()}: {expected.line}"
    elif isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
        # In a computation over all processes this is nearly always the death of another.
        first = str(error).splitlines()[0]
        code, message = LOST, (
            f"{_who()}: a computation shared with the other processes failed ({first}). If one of "
            "them died, the same command goes on from the last checkpoint."
        )  # fmt: skip
    else:
        code, message = 1, f"{_who()} failed:\n{''.join(traceback.format_exception(error))}"
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)

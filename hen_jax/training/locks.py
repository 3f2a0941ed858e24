"""One run at a time in a work directory: a lock that the system frees when its process ends."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.folders import RUN_KIND, require_run_folder
from hen_jax.core.staging import sweep
from hen_jax.training.processes import everywhere, is_primary

LOCK = ".hen_run.lock"
"""The file that is locked; it says who holds it: `host pid`."""

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


@contextmanager
def only_run(workdir: Path, kind: str = RUN_KIND) -> Iterator[None]:
    """Within, no other run can work in `workdir`; the primary holds the lock for all processes.

    A process that is killed frees it, and nothing has to be cleaned up. What killed writes left
    in the folder is removed. `kind` is what its record calls such a folder.

    Raises:
      InputError: another run works there (names its host and process), or the folder is not ours.
    """
    problem: InputError | OSError | None = None
    with ExitStack() as stack:
        if is_primary():
            try:
                stack.enter_context(locked(workdir, kind))
            except (InputError, OSError) as error:
                problem = error
        if not everywhere(problem is None):
            raise problem or InputError(f"process 0 may not write to {workdir}; it says why")
        yield


@contextmanager
def locked(workdir: Path, kind: str = RUN_KIND) -> Iterator[None]:
    """`only_run` of one process."""
    require_run_folder(workdir, besides=(LOCK,), kind=kind)
    made = not workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / LOCK
    handle = _take(path)
    try:
        sweep(workdir)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: see `_take`
        os.close(handle)
        if made:
            with suppress(OSError):  # not empty: something was written
                workdir.rmdir()


def _take(path: Path) -> int:
    """The open file, locked. A holder removes it when it ends: then there is a new one to lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(
                f"{path.parent} is in use by another run ({_owner(path)}); wait for it, end it, "
                "or give another --workdir"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            print(
                f"WARNING: the file system of {path.parent} has no locks ({error.strerror}): a "
                "second run in this folder would not be noticed",
                file=sys.stderr,
            )
        if _is_file(handle, path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
            return handle
        os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    try:
        host, process = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # it is only just being written
        return "host and process not known yet"
    return f"process {process} on host {host}"

"""All processes of a run greet process 0 before jax connects them: who is missing can be named.

jax's own service waits for minutes and ends in a C++ trace that names nobody. Each process sends
process 0 one line, `hen INDEX COUNT`, at the port that jax's service takes over afterwards, and is
answered `go`, or `missing 2,5`.
"""

import errno
import ipaddress
import selectors
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack

from hen_jax.core.errors import InputError, LostError
from hen_jax.training.clusters import Cluster

SECONDS = 60.0
RETRY_SECONDS = 0.2
LONGEST_LINE = 65536


def join_seconds(environ: Mapping[str, str]) -> float:
    """How long the processes of a run wait for each other: `HEN_JOIN_SECONDS`, or 60 s."""
    text = environ.get("HEN_JOIN_SECONDS", str(SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"HEN_JOIN_SECONDS is {text!r}; it must be a number of seconds above 0")
    return seconds


def bind_address(coordinator: str | None) -> str | None:
    """Where process 0 listens: `host:port` on the loopback alone if that is what it is called.

    None leaves it to jax: all addresses of the machine.
    """
    if coordinator is None or not is_loopback(_split(coordinator)[0]):
        return None
    return coordinator


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine and no other: `localhost`, `127.0.0.1`."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # the name of a host
        return False


def meet_all(cluster: Cluster, seconds: float) -> None:
    """Returns when every process of the cluster is there.

    Does nothing for a cluster that jax finds by itself: who belongs to it is not known here.

    Raises:
      InputError: the port is taken by another program, or the processes differ on their number.
      LostError: after `seconds`; names the processes that are missing.
    """
    if cluster.coordinator is None or cluster.processes in (None, 1) or cluster.index is None:
        return
    host, port = _split(cluster.coordinator)
    if cluster.index == 0:
        _receive(host, port, cluster.processes, seconds)
    else:
        _greet(host, port, cluster.index, cluster.processes, seconds)


def _split(coordinator: str) -> tuple[str, int]:
    host, port = coordinator.rsplit(":", 1)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _receive(host: str, port: int, count: int, seconds: float) -> None:
    """Process 0: waits for the greetings of the others, and answers them all at once."""
    deadline = time.monotonic() + seconds
    present: dict[int, socket.socket] = {}
    with ExitStack() as stack:
        with _listen(host, port) as server, selectors.DefaultSelector() as ready:
            ready.register(server, selectors.EVENT_READ)
            while len(present) < count - 1 and time.monotonic() < deadline:
                for key, _ in ready.select(max(0.0, deadline - time.monotonic())):
                    if key.data is None:
                        caller = stack.enter_context(server.accept()[0])
                        caller.setblocking(False)
                        ready.register(caller, selectors.EVENT_READ, caller)
                        continue
                    ready.unregister(key.data)
                    index = _read_greeting(key.data, count)
                    if index is not None:
                        present[index] = key.data
        # The port is free again: jax's service can take it before anyone is told to go.
        missing = [index for index in range(1, count) if index not in present]
        answer = f"missing {','.join(map(str, missing))}\n" if missing else "go\n"
        for caller in present.values():
            _send(caller, answer)
    if missing:
        raise _lost(0, count, missing, seconds)


def _listen(host: str, port: int) -> socket.socket:
    try:
        if is_loopback(host):
            return _listen_here(host, port)
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise InputError(
            f"port {port} of process 0 ({host}) is taken by another program; end it, or give "
            "another port in HEN_COORDINATOR on every process"
        ) from None


def _listen_here(host: str, port: int) -> socket.socket:
    """Listens on the first of the addresses of `host` that this machine has."""
    *others, last = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, _, _, _, address in others:
        try:
            return socket.create_server(address[:2], family=family)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
    return socket.create_server(last[4][:2], family=last[0])


def _read_greeting(caller: socket.socket, count: int) -> int | None:
    """The index of a process; None for a caller that is none, or is gone."""
    try:
        words = caller.recv(LONGEST_LINE).decode("ascii", "replace").split()
    except OSError:
        return None
    if len(words) != 3 or words[0] != "hen" or not (words[1] + words[2]).isdecimal():
        return None
    index, others = int(words[1]), int(words[2])
    if others != count:
        _send(caller, f"differs {count}\n")
        raise InputError(
            f"process {index} counts {others} processes, process 0 counts {count}; set "
            "HEN_NUM_PROCESSES to the same number everywhere"
        )
    return index if 0 < index < count else None


def _send(caller: socket.socket, line: str) -> None:
    try:
        caller.sendall(line.encode("ascii"))
    except OSError:
        return  # it is gone; jax's own connection finds out


def _greet(host: str, port: int, index: int, count: int, seconds: float) -> None:
    """Another process than 0: tells that it is there, and waits for the answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = _ask(host, port, f"hen {index} {count}\n", seconds)
        if answer == ["go"]:
            return
        if len(answer) == 2 and answer[0] == "missing":
            raise _lost(index, count, [int(one) for one in answer[1].split(",")], seconds)
        if len(answer) == 2 and answer[0] == "differs":
            raise InputError(
                f"process {index} counts {count} processes, process 0 counts {answer[1]}; set "
                "HEN_NUM_PROCESSES to the same number everywhere"
            )
        time.sleep(RETRY_SECONDS)
    raise LostError(
        f"process {index} of {count}: process 0 does not answer at {host}:{port} within "
        f"{seconds:g} s (HEN_JOIN_SECONDS); look whether it was started, then give the same "
        "command again"
    )


def _ask(host: str, port: int, line: str, seconds: float) -> list[str]:
    """The words of the answer; none where nobody is there, or goes without a word."""
    try:
        with socket.create_connection((host, port), timeout=5.0) as connection:
            connection.sendall(line.encode("ascii"))
            connection.settimeout(seconds + 5.0)  # process 0 may have started later than this one
            return connection.recv(LONGEST_LINE).decode("ascii", "replace").split()
    except OSError:
        return []


def _lost(index: int, count: int, missing: list[int], seconds: float) -> LostError:
    who = ", ".join(map(str, missing))
    noun = "processes" if len(missing) > 1 else "process"
    return LostError(
        f"process {index} of {count}: {noun} {who} did not come within {seconds:g} s "
        "(HEN_JOIN_SECONDS); look whether all were started, then give the same command again"
    )

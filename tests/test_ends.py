"""How a command ends: with one line and the right code, and nothing in the way of the next."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from hen_jax import cli
from hen_jax.commands import doctor
from hen_jax.core.errors import (
    LOST,
    STOPPED,
    InputError,
    LostError,
    StoppedEarlyError,
    StoppedError,
    told,
)
from hen_jax.core.files import RECORD
from hen_jax.core.staging import place_for
from hen_jax.training import locks
from hen_jax.training.clusters import Cluster
from hen_jax.training.locks import LOCK, locked, only_run
from hen_jax.training.rendezvous import bind_address, join_seconds, meet_all
from hen_jax.training.signals import stop_early, stop_requests
from hen_jax.training.watchdog import lost_after

FULL = OSError(errno.ENOSPC, "No space left on device", "/disk/state/d/1")


def caused(error: Exception, cause: BaseException) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("a.jsonl:3: no text"), 2, "a.jsonl:3: no text"),
        (StoppedError("stopped"), STOPPED, "stopped"),
        (StoppedEarlyError(), STOPPED, "no step was under way"),
        (LostError("process 1 of 2"), LOST, "process 1 of 2"),
        (KeyboardInterrupt(), 2, "interrupted"),
        (FULL, 2, "/disk/state/d/1: the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x: Permission denied"),
        (caused(ValueError("saving failed"), FULL), 2, "/disk/state/d/1: the disk is full"),
        (
            RuntimeError('Error writing "/d/x" [OS error 28: ENOSPC No space left on device]'),
            2,
            "/d/x: the disk is full",
        ),
        (ExceptionGroup("two", [ValueError("a"), FULL]), 2, "the disk is full"),
    ],
    ids=repr,
)
def test_an_end_that_is_no_defect_is_one_line(monkeypatch, capsys, error, code, words):
    def fail(*_):
        raise error

    monkeypatch.setattr(doctor, "doctor_verb", fail)
    assert cli.main(["doctor"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hen: ")
    assert words in line


def test_a_defect_keeps_its_traceback():
    assert told(ValueError("a defect")) is None
    looped = ValueError("first")
    looped.__cause__ = looped
    assert told(looped) is None


# One run in a work directory.

HOLD = """
import sys, time
from pathlib import Path
from hen_jax.training.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_names_the_first_and_a_kill_frees_the_folder(tmp_path):
    workdir = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, workdir], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    who = rf"process {holder.pid} on host {re.escape(socket.gethostname())}"
    with pytest.raises(InputError, match=rf"in use by another run \({who}\)"), only_run(workdir):
        pass
    with place_for(workdir / RECORD) as left:
        shutil.copytree(left, tmp_path / left.name)  # as a kill leaves it
    shutil.move(tmp_path / left.name, left)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with only_run(workdir):
        assert (workdir / LOCK).read_text().split()[1] == str(os.getpid())
        assert [path.name for path in workdir.iterdir()] == [LOCK]  # and what was left is gone
    assert not (workdir / LOCK).exists()


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="bad"), only_run(tmp_path / "new"):
        raise InputError("bad settings")
    assert not (tmp_path / "new").exists()
    with only_run(tmp_path / "new"):
        (tmp_path / "new" / RECORD).touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [RECORD]


def test_a_folder_that_is_not_ours_is_not_touched(tmp_path):
    (tmp_path / ".mine.part").write_text("a user's")
    (tmp_path / "thesis.txt").write_text("a user's")
    with pytest.raises(InputError, match="not written by hen_jax"), only_run(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.part", "thesis.txt"]


def test_a_lock_that_its_holder_removed_meanwhile_is_not_taken_for_one(tmp_path, monkeypatch):
    lock, removed = locks.fcntl.flock, []

    def late(handle, operation):  # the holder ends between our opening of the file and the lock
        if not removed:
            removed.append((tmp_path / LOCK).unlink())
        lock(handle, operation)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    with locked(tmp_path), pytest.raises(InputError, match="in use"), locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with locked(tmp_path):
        pass
    assert "has no locks (Function not implemented)" in capsys.readouterr().err


# Signals.


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("interruptible")
def test_a_signal_before_the_first_step_ends_the_run_at_once(number):
    with stop_early(), stop_early():
        with pytest.raises(StoppedEarlyError, match="no step was under way"):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    with stop_early(), pytest.raises(StoppedEarlyError), stop_requests():
        os.kill(os.getpid(), number)
    with stop_early(), stop_requests() as asked:
        assert not asked(1)
        os.kill(os.getpid(), number)
        assert asked(2)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("times", "code"), [(1, STOPPED), (2, 2)])
@pytest.mark.usefixtures("interruptible")
def test_a_main_thread_that_hears_nothing_is_ended(capfd, monkeypatch, times, code):
    """As in a compilation, which may take many minutes: no Python code runs there."""
    from hen_jax.training import signals

    codes, over = [], threading.Event()
    monkeypatch.setattr(signals, "_raise", lambda *_: None)  # is deaf

    def end(code: int) -> None:
        codes.append(code)
        over.set()

    with stop_early(grace=0.05, end=end):
        for _ in range(times):
            signal.raise_signal(signal.SIGTERM)
        assert over.wait(5)
    assert codes == [code]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("hen: ")


def test_a_signal_while_the_command_still_loads_is_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "hen_jax.verbs.run.launch", Loading("launch"))
    assert cli.main(["run", "--config=sft.py", "--workdir=run"]) == STOPPED
    assert "no step was under way" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


class Loading(types.ModuleType):
    """A module that is asked to stop when something is taken from it."""

    @property
    def launch(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return pytest.fail


@pytest.mark.usefixtures("interruptible")
def test_a_stop_that_a_finalizer_swallows_is_told_again():
    class Swallows:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def busy() -> None:
        found = Swallows()
        del found
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)

    with stop_early(end=pytest.fail), pytest.raises(StoppedEarlyError):
        busy()


# Processes that find each other.


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def meeting(indices, count, seconds, monkeypatch=None) -> dict[int, Exception | None]:
    """What meeting came to for each of the processes that were started."""
    address, ends = f"localhost:{free_port()}", {}

    def one(index: int) -> None:
        try:
            meet_all(Cluster("test", address, count, index), seconds)
            ends[index] = None
        except (InputError, LostError) as error:
            ends[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in indices]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    return ends


def test_processes_meet_whoever_comes_first():
    assert meeting([2, 0, 1], 3, 10.0) == {0: None, 1: None, 2: None}


def test_who_is_missing_is_named_to_everyone_who_came():
    ends = meeting([0, 2], 4, 0.4)
    for index in (0, 2):
        said = str(ends[index])
        assert f"process {index} of 4: processes 1, 3 did not come within 0.4 s" in said
    (alone,) = meeting([0], 2, 0.1).values()
    assert "process 0 of 2: process 1 did not come" in str(alone)
    (alone,) = meeting([1], 2, 0.1).values()
    assert "process 1 of 2: process 0 does not answer at localhost:" in str(alone)
    assert told(alone)[0] == LOST  # pyright: ignore


def test_callers_that_are_none_do_not_disturb():
    port = free_port()
    address, ends = f"localhost:{port}", []

    def process(index: int) -> None:
        ends.append(meet_all(Cluster("test", address, 2, index), 10.0))

    first = threading.Thread(target=process, args=(0,))
    first.start()
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"", b"hen 7 2\n", b"hen one two\n"):
        while True:
            try:
                caller = socket.create_connection(("localhost", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        with caller:
            caller.sendall(greeting)
    process(1)
    first.join()
    assert ends == [None, None]
    with socket.create_server(("localhost", port)):  # free for jax's own service
        pass


def test_a_port_that_is_taken_and_numbers_that_differ_are_bad_input():
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of process 0 .* is taken"):
            meet_all(Cluster("test", f"127.0.0.1:{port}", 2, 0), 1.0)
    address, ends = f"localhost:{free_port()}", []

    def process(index: int, count: int) -> None:
        with pytest.raises(InputError, match="counts 3 processes, process 0 counts 2"):
            meet_all(Cluster("test", address, count, index), 5.0)
        ends.append(index)

    both = [threading.Thread(target=process, args=pair) for pair in ((0, 2), (1, 3))]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(ends) == [0, 1]


@pytest.mark.parametrize(
    ("coordinator", "address"),
    [
        ("localhost:8476", "localhost:8476"),
        ("127.0.0.1:8476", "127.0.0.1:8476"),
        ("[::1]:8476", "[::1]:8476"),
        ("gpu03:8476", None),
        ("10.0.0.1:8476", None),
        (None, None),
    ],
)
def test_a_coordinator_with_a_name_of_this_machine_alone_listens_there_alone(coordinator, address):
    assert bind_address(coordinator) == address


def test_how_long_processes_wait_is_said_in_seconds():
    assert join_seconds({}) == 60.0
    assert join_seconds({"HEN_JOIN_SECONDS": "900"}) == 900.0
    for text in ("soon", "0", "-1", "inf", "nan"):
        with pytest.raises(InputError, match="HEN_JOIN_SECONDS"):
            join_seconds({"HEN_JOIN_SECONDS": text})


def test_jax_connecting_for_too_long_ends_in_one_line(capfd):
    over = threading.Event()
    with lost_after(0.05, "process 0 is gone", lambda code: code == LOST and over.set()):
        assert over.wait(5)
    assert capfd.readouterr().err == "hen: process 0 is gone\n"
    with lost_after(0.05, "process 0 is gone", pytest.fail):
        pass


def test_a_lost_process_ends_the_command_with_its_code(monkeypatch, tmp_path, capsys):
    for name, value in {
        "HEN_COORDINATOR": f"localhost:{free_port()}",
        "HEN_NUM_PROCESSES": "2",
        "HEN_PROCESS_ID": "1",
        "HEN_JOIN_SECONDS": "0.1",
    }.items():
        monkeypatch.setenv(name, value)
    config = Path(__file__).parent.parent / "configs" / "sft.py"
    arguments = ["run", f"--config={config}:tiny", f"--workdir={tmp_path / 'run'}"]
    assert cli.main(arguments) == LOST
    (line,) = capsys.readouterr().err.splitlines()
    assert "process 1 of 2: process 0 does not answer" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("platform", ["cuda", "bogus"])
def test_devices_that_are_not_there_are_told_in_one_line(platform):
    """In a process of its own: jax looks for its devices once."""
    script = (
        "import jax\nfrom hen_jax.core.errors import told\n"
        "for make in (jax.devices, lambda: jax.random.key(0)):\n"  # the second hides jax's frames
        "    try: make()\n    except Exception as error: print(told(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert line.startswith(
            f"CommandEnd(code=2, line=\"jax has no device of the kind '{platform}'"
        )

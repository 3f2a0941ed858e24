"""A full disk, a second command, a network that is gone: verbs that ask a model lose nothing."""

import contextlib
import errno
import fcntl
import hashlib
import os
import socket

import pytest
from recordings import EVALUATE, GENERATE, JUDGE, SYNTHESIZE, TIMED, record_all

from hen_jax import cli

VERBS = {
    "generate": (*GENERATE, "--out={out}/replies.jsonl"),
    "judge": (*JUDGE, "--out={out}"),
    "evaluate": (*EVALUATE, "--out={out}"),
    "synthesize": (*SYNTHESIZE, "--out={out}"),
}
KEPT = {
    "generate": "replies.jsonl",
    "judge": "calls.jsonl",
    "evaluate": "calls.jsonl",
    "synthesize": "calls.user.jsonl",
}
"""Where a verb keeps what it was told."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    record_all(folder)
    return folder


def typed(verb: str, home, out) -> list[str]:
    return [word.format(home=home, out=out) for word in VERBS[verb]]


def files(folder) -> dict[str, str]:
    """All but what tells the time, and what was written there before."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name not in TIMED
    }


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """What each verb writes where nothing happens to it."""
    found = {}
    for verb in VERBS:
        out = tmp_path_factory.mktemp(verb)
        assert cli.main(typed(verb, home, out)) == 0
        found[verb] = files(out)
    return found


@contextlib.contextmanager
def full_after(writes: int, monkeypatch):
    """A disk that takes so many more writes; yields the list of those that it refused."""
    left, refused, fsync = [writes], [], os.fsync

    def full(file):
        left[0] -= 1
        if left[0] < 0:
            refused.append(file)
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        yield refused


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_one_line_and_the_same_command_ends_alike(
    verb, home, whole, tmp_path, monkeypatch, capsys
):
    words, ends = typed(verb, home, tmp_path), []
    for writes in (0, 1, 2, 4, 8, 16, 32, 64):
        capsys.readouterr()
        with full_after(writes, monkeypatch) as refused:
            ends.append(cli.main(words))
        if not refused:
            break
        assert ends[-1] == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("hen: ")]
        assert "the disk is full" in line
    assert ends[-1] == 0
    assert len(ends) > 1
    assert files(tmp_path) == whole[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_command_is_refused_and_spoils_nothing(verb, home, whole, tmp_path, capsys):
    assert cli.main(typed(verb, home, tmp_path)) == 0
    capsys.readouterr()
    with (tmp_path / KEPT[verb]).open("ab") as first:  # as another process holds it
        fcntl.flock(first, fcntl.LOCK_EX)
        assert cli.main(typed(verb, home, tmp_path)) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("hen: ")]
    assert "another" in line
    assert KEPT[verb] in line
    assert files(tmp_path) == whole[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_a_network_that_is_gone_is_one_line(verb, home, tmp_path, capsys):
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    words = [
        word.replace("replay:", f"endpoint:http://localhost:{port}/v1#m;").partition(";")[0]
        for word in typed(verb, home, tmp_path)
    ]
    assert cli.main([*words, "--tries=1", "--timeout=5"]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("hen: ")]
    assert f"localhost:{port}" in line

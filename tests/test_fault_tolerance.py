"""What is lost when a machine goes away, a disk lies or a gradient explodes: nothing unsaid."""

import contextlib
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import command, environment, run

from hen_jax.core.errors import STOPPED, InputError, StoppedError
from hen_jax.core.trees import flatten
from hen_jax.data.examples import Example
from hen_jax.data.pipeline import PipelineConfig, train_batches, train_records
from hen_jax.recipes import sft
from hen_jax.runs import packed
from hen_jax.steps.update import update_step
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.metrics import read_metrics
from hen_jax.training.processes import share_of
from hen_jax.training.signals import stop_requests

OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes what stands at its input the terminal of its session, and is then another command."""

LOCAL = Path(__file__).parent.parent / "launch" / "local.sh"


@pytest.fixture(scope="module")
def whole(tiny_base, tmp_path_factory) -> Path:
    """The work directory of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(tiny_base, folder)
    return folder


def losses(workdir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(workdir) if line["kind"] == "train"}


def saved(workdir: Path) -> dict[str, np.ndarray]:
    """Every leaf of the newest checkpoint's state."""
    with closing(Checkpoints(workdir / "checkpoints", 2)) as checkpoints:
        step = checkpoints.latest()
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        return flatten(reader.restore(workdir / "checkpoints" / str(step) / "state"))


def assert_same(first: dict, second: dict):
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, second[path], err_msg=path)


def stopping_at(step: int, by: signal.Signals, monkeypatch):
    """Sends this process a signal while it waits for the batch of `step`."""

    class Interrupted:
        def __init__(self, batches):
            self.batches, self.count = batches, 0
            self.get_state, self.set_state = batches.get_state, batches.set_state

        def __next__(self):
            self.count += 1
            if self.count == step:
                os.kill(os.getpid(), by)
            return next(self.batches)

    monkeypatch.setattr(
        packed, "train_batches", lambda *a, **k: Interrupted(train_batches(*a, **k))
    )


@pytest.mark.slow  # a process of its own; .ci/run runs it each time
def test_asked_to_stop_it_saves_and_goes_on_bit_for_bit(tiny_base, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopping_at(4, signal.SIGTERM, patch)
        with pytest.raises(StoppedError, match="stopped after step 4 of"):
            run(tiny_base, tmp_path / "run")
    elsewhere = shutil.copytree(tmp_path / "run", tmp_path / "elsewhere")
    run(tiny_base, tmp_path / "run")
    assert_same(saved(tmp_path / "run"), saved(whole))
    assert losses(tmp_path / "run") == losses(whole)
    run(tiny_base, elsewhere, mesh={"data": 1, "fsdp": 4, "tensor": 2}, microbatches=2)
    np.testing.assert_allclose(
        list(losses(elsewhere).values()), list(losses(whole).values()), atol=1e-5
    )


@pytest.mark.slow  # the same
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGHUP])
def test_a_run_killed_at_a_random_moment_ends_as_one_that_was_not(tiny_base, whole, tmp_path, by):
    """SIGHUP comes from a terminal that is closed, which also takes no output any more."""
    lines = read_metrics(whole)
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))
    killed = tmp_path / "killed"
    terminal, inside = pty.openpty()
    os.set_blocking(terminal, False)
    process = subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL, *command(tiny_base, killed)],
        env=environment(tmp_path),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    folder = killed / "checkpoints"
    while process.poll() is None and not (
        folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir())
    ):
        with contextlib.suppress(OSError):  # nothing was said; or the command has ended
            os.read(terminal, 1 << 16)
        time.sleep(0.01)
    time.sleep(random.random() * 0.2)
    if by == signal.SIGKILL:
        process.send_signal(by)
    os.close(terminal)
    assert process.wait(60) in (-by, 0)
    run(tiny_base, killed)
    assert_same(saved(killed), saved(whole))
    again = [line for line in read_metrics(killed) if line["kind"] == "train"]
    assert [line["step"] for line in again] == steps
    assert [line["loss"] for line in again] == [
        line["loss"] for line in lines if line["kind"] == "train"
    ]


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_asks_once_and_ends_the_second_time():
    with stop_requests() as asked:
        assert not asked(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert asked(1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


STORY = {"loop": {"checkpoint_every": 10}, "epochs": 1.25}
"""Some forty updates."""


@pytest.mark.slow
def test_a_run_that_loses_a_process_is_stopped_and_moved_ends_as_one_that_is_not(
    tiny_base, tmp_path
):
    """2 processes x 4 devices, killed; again, asked to stop; 1 device to the end: as 1 x 8."""
    story, told = tmp_path / "story", tmp_path / "told"
    start = [str(LOCAL), "2", "4", *command(tiny_base, story, **STORY)]
    launched = subprocess.Popen(
        start, env=environment(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    wait_for_step(story, 12, launched)
    victims = children(launched.pid)
    assert len(victims) == 2
    killed = time.monotonic()
    os.kill(victims[1], signal.SIGKILL)
    _, said = launched.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert launched.returncode != 0
    assert b"another task died" in said or b"goes on from the last checkpoint" in said

    launched = subprocess.Popen(
        start, env=environment(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    wait_for_step(story, 15, launched)
    os.kill(children(launched.pid)[0], signal.SIGTERM)  # one is enough to stop both
    _, said = launched.communicate(timeout=60)
    assert launched.returncode == STOPPED, said
    assert said.count(b"hen: stopped after step ") == 2

    alone = environment(tmp_path, JAX_NUM_CPU_DEVICES="1")
    subprocess.run(command(tiny_base, story, **STORY), env=alone, check=True, capture_output=True)

    run(tiny_base, told, mesh={"data": 8}, **STORY)
    ours, theirs = losses(story), losses(told)
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-5)
    ledger = json.loads((story / "goodput.json").read_text())
    assert [one["ended"] for one in ledger["attempts"]] == ["killed", "stopped", "finished"]
    assert ledger["attempts"][1]["first_step"] == 10
    assert ledger["seconds"]["lost"] > 0
    assert ledger["seconds"]["down"] > 0
    assert 0 < ledger["goodput"] < 1


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(child) for child in listed.split()]


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen):
    path = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (path.exists() and f'"step": {step}, "kind": "train"' in path.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    tiny_base, whole, tmp_path, capsys
):
    damaged = shutil.copytree(whole, tmp_path / "run")
    folder = damaged / "checkpoints"
    older, newest = sorted(
        (p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
    )
    flip(largest(newest))
    with closing(Checkpoints(folder, 2)) as checkpoints:
        assert checkpoints.latest() == int(older.name)
    said = capsys.readouterr().err
    assert f"checkpoint {newest.name} is damaged, and not used: state/" in said
    assert "not the bytes that were written" in said

    run(tiny_base, damaged)
    assert_same(saved(damaged), saved(whole))
    assert (folder / "damaged" / newest.name / "state").is_dir()

    for path in (p for p in folder.iterdir() if p.name.isdigit()):
        os.truncate(largest(path), 10)
    with pytest.raises(InputError, match=r"every checkpoint .* is damaged .*10 bytes, .* written"):
        run(tiny_base, damaged)


def largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)


def flip(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_is_read_without_what_orbax_notes_on_the_side(whole, tmp_path):
    """The one file that no checksum guards is one that reading does not need."""
    copy = shutil.copytree(whole, tmp_path / "run")
    before = saved(whole)
    for path in (copy / "checkpoints").glob("*/_CHECKPOINT_METADATA"):
        path.write_text("{")
    assert_same(saved(copy), before)


def test_a_bad_update_is_told_with_its_records_and_too_many_end_the_run(
    tiny_base, tmp_path, monkeypatch, capsys
):
    def exploding(*given):
        step = update_step(*given)

        def exploded(state, frozen, batch):
            bad = jnp.where((state.step == 2) | (state.step >= 4), jnp.nan, 1.0)
            weight = jnp.broadcast_to(bad, batch.tokens.shape[:1])
            return step(state, frozen, batch._replace(weight=weight))

        return exploded

    monkeypatch.setattr(sft, "update_step", exploding)
    with pytest.raises(InputError, match=r"step 6: 2 update\(s\) in a row .* records of the last"):
        run(tiny_base, tmp_path / "run", loop={"skip_limit": 2, "checkpoint_every": 3})
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line["kind"] == "skipped"] == [3, 5, 6]
    (third,) = (
        line["records"] for line in lines if line["kind"] == "skipped" and line["step"] == 3
    )
    assert len(third) >= 8
    assert ", ".join(third) in capsys.readouterr().out


def test_the_records_of_a_batch_are_those_in_it():
    # Example n is made of the token n only.
    examples = [
        Example(np.full(4 + n % 7, n, np.int32), np.arange(4 + n % 7) > 1, f"r{n}", str(n))
        for n in range(1, 24)
    ]
    config = PipelineConfig(row_length=16, batch_size=4, seed=3)
    batches = train_batches(examples, config)
    for number in range(8):
        batch = next(batches)
        seen = [
            f"r{row[positions == 0][part]}"
            for row, segments, positions in zip(*batch[:5:4], batch.positions, strict=True)
            for part in range(segments.max())
        ]
        assert train_records(examples, config, number) == seen


def test_processes_share_out_rows_by_what_their_devices_hold():
    assert share_of({0: {0, 1}, 1: {2, 3}}, 1) == (1, 2)
    assert [share_of({0: {0}, 1: {0}, 2: {1}, 3: {1}}, p) for p in range(4)] == [
        (0, 2),
        (0, 2),
        (1, 2),
        (1, 2),
    ]
    with pytest.raises(InputError, match="overlap in part"):
        share_of({0: {0, 1}, 1: {1, 2}}, 0)

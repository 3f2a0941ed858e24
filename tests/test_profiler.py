"""`hen run --profile`: which updates are traced, and that a trace is written."""

import jax
import jax.numpy as jnp
import pytest

from hen_jax import cli
from hen_jax.training.profiler import profiler
from hen_jax.verbs.run import launch


@pytest.fixture
def calls(monkeypatch):
    """The profiler's own calls, none of which is made."""
    said = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: said.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: said.append("stop"))
    return said


def traced(calls: list[str], folder, updates: int, steps: int) -> list[str]:
    """The calls before each update of a run that goes on from update 10."""
    calls.clear()
    with profiler(folder, 10, updates) as look:
        for done in range(10, steps):
            look(done, ())
            calls.append(str(done))
    return calls


def test_the_third_update_is_the_first_that_is_traced(calls, tmp_path):
    expected = ["10", "11", "start", "12", "13", "stop", "14", "15"]
    assert traced(calls, tmp_path, updates=2, steps=16) == expected
    assert traced(calls, tmp_path, updates=0, steps=13) == ["10", "11", "12"]
    assert traced(calls, tmp_path, updates=9, steps=13) == ["10", "11", "start", "12", "stop"]
    assert traced(calls, tmp_path, updates=2, steps=12) == ["10", "11"]


def test_a_trace_is_written_to_the_work_directory(tmp_path):
    with profiler(tmp_path, 0, 1) as look:
        for done in range(3):
            look(done, jnp.zeros(()))
    assert list(tmp_path.glob("profile/**/*.xplane.pb"))


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        ([], []),
        (["--profile"], ["--config.loop.profile=5"]),
        (["--profile=2"], ["--config.loop.profile=2"]),
    ],
)
def test_the_flag_sets_the_field(monkeypatch, tmp_path, words, overrides):
    given = []
    monkeypatch.setattr(launch, "launch", lambda *arguments: given.append(arguments))
    assert cli.main(["run", "--config=sft:tiny", f"--workdir={tmp_path}", *words]) == 0
    assert given == [("sft:tiny", overrides, tmp_path, None)]

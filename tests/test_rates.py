"""What a run tells of its speed: true at every step, whenever it saves and evaluates."""

import json
import socket
import struct
import time
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from hen_jax.core.errors import InputError, told
from hen_jax.core.types import Batch, Mean
from hen_jax.planning.roofline import utilisation
from hen_jax.planning.topologies import CHIPS, chip_of
from hen_jax.steps.limits import beyond_limits
from hen_jax.steps.state import State
from hen_jax.training import loop, pace
from hen_jax.training.counted import counting
from hen_jax.training.guards import SKIPPED, Guarded
from hen_jax.training.metrics import MetricLog, read_metrics
from hen_jax.training.pace import Pace
from hen_jax.training.progress import duration, progress, progress_line

STEP, INPUT, PAUSE, TOKENS = 2.0, 0.5, 100.0, 70


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def fake_run(folder, clock: Clock, steps: int, late: bool = False, good: int = 1, **fields):
    """A run of which everything takes the seconds above, and the log that it writes.

    Late: the devices compute after the call, and have ended when the next was dispatched.
    """
    row = np.ones((1, TOKENS), np.int32)
    batch = Batch(row, row, row.astype(np.float32), row, row)

    class Batches:
        get_state = staticmethod(lambda: 0)

        def __next__(self):
            clock.seconds += INPUT
            return batch

    def step(state: State, frozen, batch):
        clock.seconds += STEP
        one = jnp.ones(())
        skipped = Mean(jnp.asarray(0.0 if good else 1.0), one)
        return state._replace(step=state.step + 1), {"loss": Mean(one, one), SKIPPED: skipped}

    def slow(*_):
        clock.seconds += PAUSE
        return {"loss": 1.0}

    zero = jnp.zeros((), jnp.int32)
    guarded = Guarded((), jnp.zeros(()), jnp.asarray(good, jnp.int32), zero)
    state = State({}, guarded, zero, jax.random.key(0))
    log = MetricLog(folder, 0, steps)
    run = loop.Run(
        step=counting(step),
        evaluate=slow,
        prepare=lambda state, frozen, batch: batch,
        schedule=lambda number: 0.1,
        batches=Batches(),
        checkpoints=SimpleNamespace(save=slow, wait=lambda: None),  # pyright: ignore
        log=log,
        record={},
        clock=clock,
        **fields,
    )
    return run, state, log


@pytest.mark.parametrize("late", [False, True])
def test_rates_are_true_at_every_save_and_at_the_end(tmp_path, monkeypatch, late):
    monkeypatch.setattr(loop, "_is_ready", lambda metrics: not late)
    clock = Clock()
    run, state, log = fake_run(tmp_path, clock, 7)
    with closing(log):
        loop.train(loop.LoopConfig(eval_every=2, checkpoint_every=3), run, state, {}, 7)
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 8))
    true = TOKENS / (STEP + INPUT)
    for line in lines:
        # A step that is seen late has part of the next one's time: the mean evens that out.
        assert line["tokens_per_second"] == pytest.approx(true, rel=0.5 if late else 1e-9)
        assert late or line["seconds"] == pytest.approx(STEP + INPUT)
    assert lines[-1]["tokens_per_second"] == pytest.approx(true)
    assert clock.seconds > 4 * PAUSE  # which counts for no step


def test_a_rate_is_the_mean_of_some_updates_and_takes_no_pauses():
    clock = Clock()
    speed = Pace(clock)
    clock.seconds = 50.0
    assert speed.ended(50.0, 100, usual=False) == 50.0  # was compiled first
    assert speed.rates() is None
    assert speed.ended(54.0, 100) == 4.0
    assert speed.rates() == (4.0, 25.0)
    clock.seconds = 54.0
    with speed.pause():
        clock.seconds += 1000
    assert speed.ended(clock() + 2.0, 200) == 2.0
    assert speed.rates() == (3.0, 50.0)
    clock.seconds += 2.0
    for _ in range(pace.PACE_STEPS):
        clock.seconds += 1.0
        speed.ended(clock(), 10)
    assert speed.rates() == (1.0, 10.0)


def test_an_update_that_was_compiled_first_tells_no_speed(tmp_path):
    run, state, log = fake_run(tmp_path, Clock(), 2)
    step = jax.jit(lambda state: state._replace(step=state.step + 1))
    plain = run.step

    def compiled_first(state, frozen, batch):
        return step(state), plain(state, frozen, batch)[1]

    step.__wrapped__.__name__ = compiled_first.__name__
    with closing(log):
        loop.train(loop.LoopConfig(), run._replace(step=compiled_first), state, {}, 2)
    first, second = (line for line in read_metrics(tmp_path) if line["kind"] == "train")
    assert "tokens_per_second" not in first
    assert second["tokens_per_second"] == pytest.approx(TOKENS / (STEP + INPUT))


def test_tokens_and_flops_are_those_of_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "chip_of", lambda kind: CHIPS["v5e"])
    clock = Clock()
    flops = 0.25 * CHIPS["v5e"].flops * (STEP + INPUT) * jax.device_count()
    run, state, log = fake_run(tmp_path, clock, 2, flops=lambda number: flops)
    with closing(log):
        loop.train(loop.LoopConfig(), run, state, {}, 2)
    (_, last) = (line for line in read_metrics(tmp_path) if line["kind"] == "train")
    assert last["tokens_per_second"] == pytest.approx(TOKENS / (STEP + INPUT))
    assert last["mfu"] == pytest.approx(0.25)


def test_utilisation_divides_by_the_chips():
    assert utilisation(1e15, 2.0, 250e12, 4) == 0.5
    assert pace.run_mfu(1e15, 1.0) is None  # a CPU has no peak here


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 PCIe", None),
        ("cpu", None),
    ],
)
def test_the_data_sheet_of_a_device(device, kind):
    assert chip_of(device) == (None if kind is None else CHIPS[kind])


VALUES = {
    "loss": 1.93412,
    "learning_rate": 1e-4,
    "tokens_per_second": 3512.2,
    "seconds_per_update": 3.0,
}


def test_a_line_comes_every_so_often_and_at_the_ends():
    said, now = [], Clock()
    tell = progress(1000, 100, said.append, seconds=30.0, now=now)
    for step in range(5, 1001):
        now.seconds += 1.0 if step > 900 else 0.01
        tell(step, VALUES)
    told = [int(line.split()[1].split("/")[0]) for line in said]
    assert told == [5, *range(100, 1000, 100), 930, 960, 990, 1000]


def test_a_line_says_what_there_is_to_say():
    line = progress_line(40, 120, VALUES)
    assert line == "step 40/120: loss 1.934, rate 0.0001, 3,512 tokens/s, 4 min left"
    more = VALUES | {"device_memory_gb": 10.12, "mfu": 0.413}
    assert progress_line(40, 120, more) == line + ", device memory 10.1 GB, MFU 41.3 %"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(45, "45 s"), (59.7, "1 min"), (719, "12 min"), (11100, "3 h 05 min"), (187300, "2 d 4 h")],
)
def test_durations_are_for_people(seconds, told):
    assert duration(seconds) == told


def test_a_run_without_a_terminal_prints_lines(tmp_path, capsys):
    run, state, log = fake_run(tmp_path, Clock(), 3)
    with closing(log):
        loop.train(loop.LoopConfig(), run, state, {}, 3)
    said = capsys.readouterr().out
    assert "step 1/3: loss 1, rate 0.1, 28 tokens/s, 5 s left" in said
    assert "step 3/3" in said
    assert "step 2/3" not in said


def test_a_run_that_learnt_nothing_does_not_end_well(tmp_path):
    for folder in ("first", "again"):  # and not when it is only started once more
        run, state, log = fake_run(tmp_path / folder, Clock(), 2, good=0)
        done = state._replace(step=state.step + (2 if folder == "again" else 0))
        with closing(log), pytest.raises(InputError, match=r"nothing was learnt: all 2 updates"):
            loop.train(loop.LoopConfig(), run, done, {}, 2)


def test_a_skipped_update_tells_which_rows_exceed_what_the_step_was_compiled_for(tmp_path):
    beyond = partial(beyond_limits, capacity=TOKENS - 1)
    run, state, log = fake_run(tmp_path, Clock(), 2, good=0, beyond=beyond)
    said = rf"row 0 trains {TOKENS} positions, capacity is {TOKENS - 1}"
    with closing(log), pytest.raises(InputError, match=rf"step 1: 1 update.*; {said}$"):
        loop.train(loop.LoopConfig(skip_limit=1), run, state, {}, 2)
    (line,) = (line for line in read_metrics(tmp_path) if line["kind"] == "skipped")
    assert line["beyond"] == [said]


def test_numbers_that_are_none_are_null(tmp_path):
    with closing(MetricLog(tmp_path, 0, 1, quiet=True)) as log:
        log.train(1, {"loss": float("nan"), "tokens_per_second": float("inf")})
        log.evaluation(1, {})
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert set(json.loads(line).values()) - {json.loads(line)["seal"]} <= {
            *(1, "train", "eval", None)
        }


def test_a_full_disk_under_tensorboard_ends_the_run_and_does_not_hang_it(tmp_path, monkeypatch):
    """/dev/full takes what is buffered, and has no space for it when it is written."""
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    (tmp_path / "tensorboard" / f"events.out.tfevents.0.{socket.gethostname()}").symlink_to(
        "/dev/full"
    )
    log = MetricLog(tmp_path, 0, 1, quiet=True)
    many = {f"n{number}": 1.0 for number in range(500)}
    with pytest.raises(OSError, match="No space left") as caught:
        log.train(1, many | {"loss": 1.0, "tokens_per_second": 1.0})
    assert told(caught.value) == (
        2,
        "writing: the disk is full; free some space and give the same command",
    )
    with pytest.raises(OSError, match="No space left"):
        log.close()
    assert log._lines.closed


def test_tensorboard_gets_every_number(tmp_path):
    with closing(MetricLog(tmp_path, 4, 6, quiet=True)) as log:
        log.train(5, {"loss": 1.5, "tokens_per_second": 0.25})
        log.evaluation(6, {"loss": 1.25})
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = [Event.FromString(record) for record in tfrecords(path.read_bytes())]
    assert [event.step for event in events if event.HasField("session_log")] == [5]
    values = [
        (event.step, value.tag, value.simple_value)
        for event in events
        for value in event.summary.value
    ]
    assert values == [
        (5, "train/loss", 1.5),
        (5, "train/tokens_per_second", 0.25),
        (6, "eval/loss", 1.25),
    ]


def tfrecords(content: bytes):
    """Each: length, its checksum, the record, its checksum."""
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield content[12 : 12 + length]
        content = content[16 + length :]

"""The one training loop: data, step, metrics, evaluation, checkpoint, in that order."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax

from hen_jax.core.errors import InputError, StoppedError
from hen_jax.core.ranges import Count, Natural, NotNegative, check_ranges
from hen_jax.core.records import Record
from hen_jax.core.types import Tree
from hen_jax.steps.state import State
from hen_jax.steps.update import Metrics
from hen_jax.training.checkpoints import Checkpoints
from hen_jax.training.compiles import Compilations, compilations
from hen_jax.training.counted import TOKENS
from hen_jax.training.goodput import Ended, Goodput
from hen_jax.training.guards import SKIPPED, made_updates
from hen_jax.training.metrics import MetricLog, fetch_metrics
from hen_jax.training.pace import Clock, Pace, device_memory, run_mfu
from hen_jax.training.profiler import Look, profiler
from hen_jax.training.progress import Tell, progress
from hen_jax.training.red_flags import Flags, no_flags
from hen_jax.training.signals import AskedToStop, stop_requests
from hen_jax.training.watchdog import watchdog


class BatchSource(Protocol):
    """An endless iterator of batches that knows its place (grain's `DatasetIterator`).

    What it gives is a `Batch`, or a tree of them such as an episode: the step knows which.
    """

    def __next__(self) -> Any: ...

    def get_state(self) -> Any:
        """The place in the stream, as JSON."""
        ...

    def set_state(self, state: Any) -> None:
        """Moves to a place."""
        ...


Prepare = Callable[[State, Tree, Any], Any]
"""`prepare(state, frozen, batch)`: the step's batch, on the devices, from one of the host."""

Evaluator = Callable[[State], dict[str, float]]
"""What looks at a state now and then, and gives numbers for the log."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When the loop does what, in updates but for `stall_seconds`; and what it tells whom."""

    eval_every: Natural = 0  # held-out loss; 0: only before the first and after the last update
    evaluate_every: Natural = 0  # by the `evaluators`, likewise
    evaluators: tuple[str, ...] = ()  # such as "replies"; see `runs.evaluators`
    trackers: tuple[str, ...] = ("tensorboard",)  # beside metrics.jsonl; see `training.trackers`
    checkpoint_every: Count = 100  # updates between two checkpoints
    keep_checkpoints: Count = 2  # the newest so many; older ones are deleted
    skip_limit: Count = 10  # updates skipped in a row that end the run; 1: the first ends it
    stall_seconds: NotNegative = 1800.0  # the run ends when nothing happens for so long; 0: never
    profile: Natural = 0  # updates traced by jax's profiler, into `profile/`, from the third on
    progress_every: Count = 100  # a line without a terminal; one comes every 30 s in any case

    def __post_init__(self):
        check_ranges(self)


def no_bounds(batch: Any) -> Sequence[str]:
    """Of a stage whose rows cannot exceed what its step was compiled for."""
    return ()


class Run(NamedTuple):
    """What the loop needs besides the state."""

    step: Callable[[State, Tree, Any], tuple[State, Metrics]]  # jitted; donates the state
    evaluate: Evaluator  # the held-out loss
    prepare: Prepare
    schedule: Callable[[int], Any]  # learning rate by step, for the log
    batches: BatchSource
    checkpoints: Checkpoints
    log: MetricLog
    record: Record
    records: Callable[[int], Sequence[str]] = lambda number: ()  # ids in the n-th batch, from 0
    evaluators: Mapping[str, Evaluator] = {}
    first: Callable[[Mapping[str, float]], None] = lambda values: None  # may refuse to go on
    flops: Callable[[int], float] = lambda number: 0.0  # the model's, on all devices; 0: not known
    flags: Flags = no_flags  # what an update's metrics give cause for
    beyond: Callable[[Any], Sequence[str]] = no_bounds  # the bounds that a batch's rows exceed
    clock: Clock = time.perf_counter


class _Pending(NamedTuple):
    number: int
    metrics: Metrics
    ended: float | None  # when, if the call that started it only returned then
    compiled: bool  # in that call
    batch: Any  # of the host


class _Watch(NamedTuple):
    """What looks after a run while it goes on."""

    asked_to_stop: AskedToStop
    alive: Callable[[], None]
    compiled: Callable[[], Compilations]
    profile: Look
    time: Goodput
    pace: Pace
    tell: Tell


def train(config: LoopConfig, run: Run, state: State, frozen: Tree, steps: int) -> State:
    """Runs updates until `state.step` is `steps`, and saves the last state.

    Metrics of a step are fetched after the next is dispatched, so that the devices never wait for
    the host to print. The data iterator must stand where the state stands (see `runs.train`).

    Raises:
      StoppedError: SIGTERM or Ctrl-C came; the state is saved.
      InputError: `skip_limit` updates in a row, or all of them, had a bad gradient (see
        `training.guards`); what was done is saved.
    """
    start = int(state.step)
    ledger = Goodput(run.log.folder, start, run.log.lost_seconds, writes=run.log.writes)
    ledger.write(start, "running")
    pace = Pace(run.clock)
    tell = _silent
    if run.log.plain:
        tell = progress(steps, config.progress_every, run.log.say, run.log.place)
    with (
        stop_requests() as asked,
        watchdog(config.stall_seconds) as alive,
        compilations(run.step.__name__) as compiled,
        profiler(run.log.folder, start, config.profile) as profile,
    ):
        watch = _Watch(asked, alive, compiled, profile, ledger, pace, tell)
        state = _updates(config, run, watch, state, frozen, steps)
    _require_learning(state, steps)
    return state


def _silent(step: int, values: Mapping[str, float]) -> None:
    """There is a progress bar."""


def _updates(
    config: LoopConfig, run: Run, watch: _Watch, state: State, frozen: Tree, steps: int
) -> State:
    number = int(state.step)
    if number == 0:
        run.first(_evaluate(run, watch, state, number))
        _look(run, watch, state, number)
    pending: _Pending | None = None
    while number < steps:
        watch.profile(number, state)
        with watch.time.spend("input"):
            batch = next(run.batches)
        state, metrics, compiled = _step(run, watch, state, frozen, batch)
        number += 1
        ended = watch.pace.now() if _is_ready(metrics) else None
        alarm = _write(config, run, watch, pending)
        pending = _Pending(number, metrics, ended, compiled, batch)
        last = number == steps
        stops = watch.asked_to_stop(number) and not last
        saves = last or stops or alarm is not None or number % config.checkpoint_every == 0
        evaluates, looks = (
            last or (every > 0 and number % every == 0)
            for every in (config.eval_every, config.evaluate_every)
        )
        if saves or evaluates or looks:
            alarm = _write(config, run, watch, pending) or alarm
            saves, pending = saves or alarm is not None, None
        if evaluates and not stops:
            _evaluate(run, watch, state, number)
        if looks and not stops:
            _look(run, watch, state, number)
        if saves:
            _save(run, watch, state, number, "finished" if last else "running")
        if alarm is not None:
            raise InputError(f"{alarm}; the state after step {number} is saved")
        if stops:
            raise _stopped(run, watch, number, steps)
    return state


def _is_ready(metrics: Metrics) -> bool:
    """Whether a step is done already: a backend may compute within the call that dispatches."""
    arrays = (leaf for leaf in jax.tree.leaves(metrics) if isinstance(leaf, jax.Array))
    return all(array.is_ready() for array in arrays)  # pyright: ignore[reportAttributeAccessIssue]


def _step(
    run: Run, watch: _Watch, state: State, frozen: Tree, batch: Tree
) -> tuple[State, Metrics, bool]:
    before = watch.compiled()
    state, metrics = run.step(state, frozen, run.prepare(state, frozen, batch))
    after = watch.compiled()
    compiled = after.count > before.count
    if compiled:
        watch.time.add("compile", after.seconds - before.seconds)
        watch.pace.leave_out(after.seconds - before.seconds)
    return state, metrics, compiled


def _write(config: LoopConfig, run: Run, watch: _Watch, pending: _Pending | None) -> str | None:
    """Writes an update's metrics; why the run must end, if they give cause for it."""
    if pending is None:
        return None
    values = fetch_metrics(pending.metrics)
    watch.alive()
    values["learning_rate"] = float(run.schedule(pending.number - 1))
    values |= _speed(run, watch, pending, round(values.pop(TOKENS, 0.0)))
    run.log.train(pending.number, values)
    watch.tell(pending.number, values)
    skipped = round(values.get(SKIPPED, 0.0))
    if skipped:
        _tell_skipped(config, run, pending, skipped)
    raised = run.flags(pending.number, values)
    for flag in raised:
        run.log.say(f"step {pending.number}: {flag.text}")
    return next((f"step {pending.number}: {flag.text}" for flag in raised if flag.stops), None)


def _tell_skipped(config: LoopConfig, run: Run, pending: _Pending, in_row: int) -> None:
    records, beyond = run.records(pending.number - 1), run.beyond(pending.batch)
    run.log.skipped(pending.number, records, beyond)
    if in_row >= config.skip_limit:
        raise InputError(
            f"step {pending.number}: {in_row} update(s) in a row had a gradient that is not "
            f"finite or far larger than usual (config.loop.skip_limit); records of the last "
            f"batch: {', '.join(records) or 'not known'}. Mend or remove them, or lower "
            "config.optimizer.learning_rate" + "".join(f"; {line}" for line in beyond)
        )


def _speed(run: Run, watch: _Watch, pending: _Pending, tokens: int) -> dict[str, float]:
    """How long the update took, and what it made of the devices."""
    ended = watch.pace.now() if pending.ended is None else pending.ended
    values = {"seconds": watch.pace.ended(ended, tokens, usual=not pending.compiled)}
    rates, memory = watch.pace.rates(), device_memory()
    if memory is not None:
        values["device_memory_gb"] = memory.peak / 1e9
    if rates is not None:
        values |= rates._asdict()
        mfu = run_mfu(run.flops(pending.number - 1), rates.seconds_per_update)
        values |= {} if mfu is None else {"mfu": mfu}
    return values


def _evaluate(run: Run, watch: _Watch, state: State, number: int) -> dict[str, float]:
    with watch.time.spend("evaluation"), watch.pace.pause():
        values = run.evaluate(state)
        run.log.evaluation(number, values)
    watch.alive()
    return values


def _look(run: Run, watch: _Watch, state: State, number: int) -> None:
    for name, look in run.evaluators.items():
        with watch.time.spend("evaluation"), watch.pace.pause():
            run.log.looked(number, name, look(state))
        watch.alive()


def _save(run: Run, watch: _Watch, state: State, number: int, ended: Ended) -> None:
    with watch.time.spend("checkpoint"), watch.pace.pause():
        run.checkpoints.save(number, state, run.batches.get_state(), run.record)
        if ended != "running":
            run.checkpoints.wait()
    watch.time.write(number, ended)
    watch.alive()


def _stopped(run: Run, watch: _Watch, number: int, steps: int) -> StoppedError:
    run.checkpoints.wait()
    watch.time.write(number, "stopped")
    return StoppedError(
        f"stopped after step {number} of {steps}; its checkpoint is saved, and the same command "
        "goes on from there"
    )


def _require_learning(state: State, steps: int) -> None:
    """Refuses to call a run finished that has learnt nothing."""
    if steps and made_updates(state) == 0:
        raise InputError(
            f"nothing was learnt: all {steps} updates were skipped, since their gradients were not "
            "finite or would have made a parameter infinite. metrics.jsonl names the records of "
            "each; mend or remove them, or lower config.optimizer.learning_rate, and start again "
            "in another --workdir"
        )

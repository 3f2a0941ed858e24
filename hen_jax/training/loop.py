"""The one training loop: data, step, metrics, evaluation, checkpoint, in that order."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax

from hen_jax.core.errors import InputError, StoppedError
from hen_jax.core.ranges import Count, Natural, NotNegative, check_ranges
from hen_jax.core.types import Batch, Mean, Tree
from hen_jax.steps.state import State
from hen_jax.steps.update import Metrics
from hen_jax.training.checkpoints import Checkpoints, Record
from hen_jax.training.compiles import compilations
from hen_jax.training.goodput import Ended, Goodput
from hen_jax.training.guards import SKIPPED
from hen_jax.training.metrics import MetricLog, fetch
from hen_jax.training.signals import Asked, stop_requests
from hen_jax.training.watchdog import watchdog


class Batches(Protocol):
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


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When the loop does what; all in updates, but for `stall_seconds`."""

    eval_every: Natural = 0  # 0: only before the first and after the last update
    checkpoint_every: Count = 100  # updates between two checkpoints
    keep_checkpoints: Count = 2  # the newest so many; older ones are deleted
    skip_limit: Count = 10  # updates skipped in a row that end the run; 1: the first ends it
    stall_seconds: NotNegative = 1800.0  # the run ends when nothing happens for so long; 0: never

    def __post_init__(self):
        check_ranges(self)


class Run(NamedTuple):
    """What the loop needs besides the state."""

    step: Callable[[State, Tree, Any], tuple[State, Metrics]]  # jitted; donates the state
    evaluate: Callable[[State], dict[str, float]]
    put: Callable[[Any], Any]  # a batch from the host to the devices
    schedule: Callable[[int], Any]  # learning rate by step, for the log
    batches: Batches
    checkpoints: Checkpoints
    log: MetricLog
    record: Record
    records: Callable[[int], Sequence[str]] = lambda number: ()  # ids in the n-th batch, from 0


class _Pending(NamedTuple):
    number: int
    metrics: Metrics
    tokens: int


class _Watch(NamedTuple):
    """What looks after a run while it goes on."""

    asked_to_stop: Asked
    alive: Callable[[], None]
    compiled: Callable[[], int]
    time: Goodput


def train(config: LoopConfig, run: Run, state: State, frozen: Tree, steps: int) -> State:
    """Runs updates until `state.step` is `steps`, and saves the last state.

    Metrics of a step are fetched after the next is dispatched, so that the devices never wait for
    the host to print. The data iterator must stand where the state stands (see `resume`).

    Raises:
      StoppedError: SIGTERM or Ctrl-C came; the state is saved.
      InputError: `skip_limit` updates in a row had a bad gradient (see `training.guards`).
    """
    start = int(state.step)
    ledger = Goodput(run.log.folder, start, run.log.lost_seconds, writes=run.log.writes)
    ledger.write(start, "running")
    with (
        stop_requests() as asked,
        watchdog(config.stall_seconds) as alive,
        compilations(run.step.__name__) as compiled,
    ):
        return _updates(config, run, _Watch(asked, alive, compiled, ledger), state, frozen, steps)


def _updates(
    config: LoopConfig, run: Run, watch: _Watch, state: State, frozen: Tree, steps: int
) -> State:
    number = int(state.step)
    if number == 0:
        _evaluate(run, watch, state, number)
    pending: _Pending | None = None
    while number < steps:
        with watch.time.spend("input"):
            batch = next(run.batches)
        state, metrics = _step(run, watch, state, frozen, batch)
        number += 1
        _write(config, run, watch, pending)
        pending = _Pending(number, metrics, _tokens(batch))
        last = number == steps
        stops = watch.asked_to_stop(number) and not last
        saves = last or stops or number % config.checkpoint_every == 0
        evaluates = last or (config.eval_every > 0 and number % config.eval_every == 0)
        if saves or evaluates:
            _write(config, run, watch, pending)
            pending = None
        if evaluates and not stops:
            _evaluate(run, watch, state, number)
        if saves:
            _save(run, watch, state, number, "finished" if last else "running")
        if stops:
            raise _stopped(run, watch, number, steps)
    return state


def _tokens(batch: Tree) -> int:
    """How many tokens stand in the batch, or in all batches of a tree of them."""
    batches = jax.tree.leaves(batch, is_leaf=lambda node: isinstance(node, Batch))
    return sum(int((one.segments != 0).sum()) for one in batches)


def _step(
    run: Run, watch: _Watch, state: State, frozen: Tree, batch: Tree
) -> tuple[State, Metrics]:
    before, start = watch.compiled(), time.perf_counter()
    result = run.step(state, frozen, run.put(batch))
    if watch.compiled() > before:  # a call that only dispatches takes no time to speak of
        watch.time.add("compile", time.perf_counter() - start)
    return result


def _write(config: LoopConfig, run: Run, watch: _Watch, pending: _Pending | None) -> None:
    if pending is None:
        return
    values = fetch(pending.metrics)
    watch.alive()
    values["learning_rate"] = float(run.schedule(pending.number - 1))
    run.log.train(pending.number, values, pending.tokens)
    skipped = round(values.get(SKIPPED, 0.0))
    if skipped:
        records = run.records(pending.number - 1)
        run.log.skipped(pending.number, records)
        if skipped >= config.skip_limit:
            raise InputError(
                f"step {pending.number}: {skipped} update(s) in a row had a gradient that is not "
                f"finite or far larger than usual (config.loop.skip_limit); records of the last "
                f"batch: {', '.join(records) or 'not known'}. Mend or remove them, or lower "
                "config.optimizer.learning_rate"
            )


def _evaluate(run: Run, watch: _Watch, state: State, number: int) -> None:
    with watch.time.spend("evaluation"):
        run.log.evaluation(number, run.evaluate(state))
    watch.alive()


def _save(run: Run, watch: _Watch, state: State, number: int, ended: Ended) -> None:
    with watch.time.spend("checkpoint"):
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


def resume(run: Run, state: State) -> State:
    """The newest sound checkpoint's state, with the data iterator moved to its place; else `state`.

    A run may go on with another number of devices or processes: the place in the data is a number
    of global batches, so the same rows follow (see `data.pipeline`).
    """
    run.checkpoints.clear_away()
    if run.checkpoints.latest() is None:
        return state
    state, place = run.checkpoints.restore(state)
    run.batches.set_state(place)
    return state


def evaluator(
    loss: Callable[[Tree, Tree, Any], tuple[Mean, Metrics]],
    frozen: Tree,
    put: Callable[[Any], Any],
    batches: Callable[[], Iterator[Any]],
) -> Callable[[State], dict[str, float]]:
    """A function from a state to the loss and metrics over all of `batches()`."""

    def score(params: Tree, frozen: Tree, batch: Tree) -> Metrics:
        mean, metrics = loss(params, frozen, batch)
        return metrics | {"loss": mean}

    jitted = jax.jit(score)

    def evaluate(state: State) -> dict[str, float]:
        sums: Metrics | None = None
        for batch in batches():
            part = jitted(state.params, frozen, put(batch))
            sums = part if sums is None else jax.tree.map(jax.numpy.add, sums, part)
        return fetch(sums) if sums is not None else {}

    return evaluate

"""The one training loop: data, step, metrics, evaluation, checkpoint, in that order."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax

from hen_jax.core.types import Batch, Mean, Tree
from hen_jax.steps.state import State
from hen_jax.steps.update import Metrics, Step
from hen_jax.training.checkpoints import Checkpoints, Record
from hen_jax.training.metrics import MetricLog, fetch


class Batches(Protocol):
    """An endless iterator of batches that knows its place (grain's `DatasetIterator`)."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> Any:
        """The place in the stream, as JSON."""
        ...

    def set_state(self, state: Any) -> None:
        """Moves to a place."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When the loop does what; all in updates."""

    eval_every: int = 0  # 0: only before the first and after the last update
    checkpoint_every: int = 100
    keep_checkpoints: int = 2


class Run(NamedTuple):
    """What the loop needs besides the state."""

    step: Step  # jitted; donates the state
    evaluate: Callable[[State], dict[str, float]]
    put: Callable[[Batch], Batch]  # from the host to the devices
    schedule: Callable[[int], Any]  # learning rate by step, for the log
    batches: Batches
    checkpoints: Checkpoints
    log: MetricLog
    record: Record


class _Pending(NamedTuple):
    number: int
    metrics: Metrics
    tokens: int


def train(config: LoopConfig, run: Run, state: State, frozen: Tree, steps: int) -> State:
    """Runs updates until `state.step` is `steps`, and saves the last state.

    Metrics of a step are fetched after the next is dispatched, so that the devices never wait for
    the host to print. The data iterator must stand where the state stands (see `resume`).
    """
    number = int(state.step)
    if number == 0:
        run.log.evaluation(0, run.evaluate(state))
    pending: _Pending | None = None
    while number < steps:
        batch = next(run.batches)
        state, metrics = run.step(state, frozen, run.put(batch))
        number += 1
        _write(run, pending)
        pending = _Pending(number, metrics, int((batch.segments > 0).sum()))
        last = number == steps
        saves = last or number % config.checkpoint_every == 0
        evaluates = last or (config.eval_every > 0 and number % config.eval_every == 0)
        if saves or evaluates:
            _write(run, pending)
            pending = None
        if evaluates:
            run.log.evaluation(number, run.evaluate(state))
        if saves:
            run.checkpoints.save(number, state, run.batches.get_state(), run.record)
    return state


def resume(run: Run, state: State) -> State:
    """The newest checkpoint's state, with the data iterator moved to its place; else `state`."""
    if run.checkpoints.latest() is None:
        return state
    state, place = run.checkpoints.restore(state)
    run.batches.set_state(place)
    return state


def evaluator(
    loss: Callable[[Tree, Tree, Batch], tuple[Mean, Metrics]],
    frozen: Tree,
    put: Callable[[Batch], Batch],
    batches: Callable[[], Iterator[Batch]],
) -> Callable[[State], dict[str, float]]:
    """A function from a state to the loss and metrics over all of `batches()`."""

    def score(params: Tree, frozen: Tree, batch: Batch) -> Metrics:
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


def _write(run: Run, pending: _Pending | None) -> None:
    if pending is None:
        return
    values = fetch(pending.metrics)
    values["learning_rate"] = float(run.schedule(pending.number - 1))
    run.log.train(pending.number, values, pending.tokens)

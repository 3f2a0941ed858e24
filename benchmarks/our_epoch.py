"""An epoch of ours as the product trains one, for the duels with TRL."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import duel


class Epoch(NamedTuple):
    """What came of it."""

    timed: dict[str, list[float]]  # as `duel.timed`, without the compilation
    compile_s: float
    losses: list[float]  # of each update
    state: Any  # after the last
    step: Any  # compiled
    counted: int  # by `count`, over the batches


def train_epoch(
    step: Any,
    state: Any,
    frozen: Any,
    put: Callable[[Any], Any],
    batches: Iterator[Any],
    updates: int,
    count: Callable[[Any], int] = lambda batch: 0,
) -> Epoch:
    """That many updates of a jitted step, compiled beforehand.

    As `training.loop.train`: metrics are fetched after the next update is dispatched.
    """
    from hen_jax.training.metrics import fetch_metrics

    first, start = next(batches), time.perf_counter()
    step = step.lower(state, frozen, put(first)).compile()
    compile_s, losses, counted = time.perf_counter() - start, list[float](), 0

    def epoch() -> None:
        nonlocal state, counted
        pending = []
        for batch in itertools.islice(itertools.chain([first], batches), updates):
            state, metrics = step(state, frozen, put(batch))
            losses.extend(fetch_metrics(one)["loss"] for one in pending)
            pending = [metrics]
            counted += count(batch)
        losses.extend(fetch_metrics(one)["loss"] for one in pending)

    found = duel.timed(epoch)
    return Epoch(found, compile_s, losses, state, step, counted)

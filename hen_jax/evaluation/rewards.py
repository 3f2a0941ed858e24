"""Rewards: functions from replies to numbers, mixed with weights, and kept from spoiling a run.

A plain reward is `(prompt, reply, record) -> float`. `each` makes one of many replies of it, which
is what a model wants to be asked: `Reward`. `mixed` asks all rewards of a run and says of every
reply what it earned, and which reward gave it no number and why.
"""

import math
import queue
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.evaluation.calibration import Calibration, TaskScale
from hen_jax.text.conversation import Message


class Answered(NamedTuple):
    """A reply, and what it answers."""

    prompt: tuple[Message, ...]
    reply: str  # the last turn of the policy
    record: Mapping[str, str]  # id, group, and the labels of the record: task, language, ...
    group: int = 0  # replies to one prompt have the same number
    turns: tuple[Message, ...] = ()  # all that followed the prompt, this reply included

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All of it."""
        return self.prompt + (self.turns or (Message("assistant", self.reply),))


Plain = Callable[[Sequence[Message], str, Mapping[str, str]], float]
"""`(prompt, reply, record) -> float`; NaN is no number: such a reply does not train."""

Reward = Callable[[Sequence[Answered]], Sequence[float]]
"""A number for each reply, in order. A groupwise judge finds the groups by `Answered.group`."""


class Term(NamedTuple):
    """One of the rewards that are mixed."""

    name: str
    reward: Reward
    weight: float = 1.0
    held_out: bool = False  # asked at evaluations alone, and never in the sum


class Earned(NamedTuple):
    """What `N` replies earned by `C` rewards."""

    rewards: np.ndarray  # [N] float32, the weighted sum; NaN where a part is missing
    parts: np.ndarray  # [N, C] float32, before the weights; NaN where there is none
    problems: tuple[str, ...]  # one line for each reward that failed: name, count, first reason

    @property
    def valid(self) -> np.ndarray:
        """`[N]` bool: the reply has a reward."""
        return np.isfinite(self.rewards)


def mixed(terms: Sequence[Term], answered: Sequence[Answered], evaluating: bool = False) -> Earned:
    """Asks every reward about every reply; `held_out` ones only when `evaluating`.

    A reward that raises, hangs, gives no finite number or not one per reply is named among the
    problems, and the replies concerned have no reward: nobody's mistake becomes a zero.
    """
    parts = np.full((len(answered), len(terms)), np.nan, np.float32)
    total, problems = np.zeros(len(answered), np.float32), []
    for place, term in enumerate(terms):
        if term.held_out and not evaluating:
            continue
        parts[:, place], problem = _asked(term, answered)
        problems += [problem] if problem else []
        if not term.held_out:
            total += np.float32(term.weight) * parts[:, place]
    return Earned(total, parts, tuple(problems))


def _asked(term: Term, answered: Sequence[Answered]) -> tuple[np.ndarray, str | None]:
    nothing = np.full(len(answered), np.nan, np.float32)
    try:
        given = term.reward(answered)
        found = np.asarray(given, np.float32)
    except FailedError as error:
        found, why = np.asarray(error.given, np.float32), str(error)
        return found, f"reward {term.name!r}: {why}"
    except Exception as error:  # a user's function may raise anything
        return nothing, f"reward {term.name!r} raised {_told(error)}"
    if found.shape != (len(answered),):
        what = f"{found.shape[0] if found.ndim == 1 else found.shape} numbers"
        return nothing, f"reward {term.name!r} gave {what} for {len(answered)} replies"
    bad = ~np.isfinite(found)
    if bad.any():
        which = answered[int(bad.argmax())].record.get("id", "?")
        found = np.where(bad, np.nan, found)
        return found, (
            f"reward {term.name!r} gave no finite number for {bad.sum()} of {len(bad)} replies; "
            f"the first answers record {which}"
        )
    return found, None


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


class FailedError(RuntimeError):
    """A reward that failed for some replies: what it gave for the others, NaN for these."""

    def __init__(self, message: str, given: Sequence[float]):
        super().__init__(message)
        self.given = given


def each(function: Plain, timeout: float = 0.0) -> Reward:
    """A plain function as a `Reward`; with a `timeout` in seconds for every single reply.

    A reply over which it raises or hangs gets NaN, the others their numbers, and `FailedError` says
    how many and why. A call that hangs cannot be ended from outside: it is left to its thread.
    """

    def reward(answered: Sequence[Answered]) -> list[float]:
        values, reasons = [], []
        ask = _Worker(function)
        for one in answered:
            value, reason = ask(one, timeout)
            if reason is not None and reason.startswith("took"):
                ask = _Worker(function)  # the old one may never come back
            values.append(value)
            reasons += [] if reason is None else [f"{reason} (record {one.record.get('id', '?')})"]
        ask.end()
        if reasons:
            raise FailedError(f"{len(reasons)} of {len(values)} replies: {reasons[0]}", values)
        return values

    return reward


class _Worker:
    """A thread that asks a function, so that one who waits can give up; a foreign resource."""

    def __init__(self, function: Plain):
        self._function, self._asked = function, queue.SimpleQueue()
        self._told: queue.SimpleQueue[tuple[float, str | None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name="reward").start()

    def _work(self) -> None:
        while (one := self._asked.get()) is not None:
            try:
                value = float(self._function(one.prompt, one.reply, one.record))
                self._told.put((value, None))
            except Exception as error:  # a user's function may raise anything
                self._told.put((math.nan, f"raised {_told(error)}"))

    def __call__(self, one: Answered, timeout: float) -> tuple[float, str | None]:
        self._asked.put(one)
        try:
            return self._told.get(timeout=timeout or None)
        except queue.Empty:
            self._asked.put(None)
            return math.nan, f"took longer than {timeout:g} s"

    def end(self) -> None:
        self._asked.put(None)


def calibrated(
    score: Reward, calibration: Calibration, label: Callable[[Mapping[str, str]], str]
) -> Reward:
    """A reward model's scores in spreads of their task's from its mean: one unit for all tasks.

    The numbers are frozen: with those of the replies at hand a reward would move while the policy
    learns. A task that the reward model never saw gets the middle of the known means and the root
    mean square of the known spreads.

    Raises:
      InputError: nothing is known, or a spread is not positive.
    """
    for task, (mean, spread) in calibration.tasks.items():
        if not (math.isfinite(mean) and math.isfinite(spread) and spread > 0):
            raise InputError(f"calibration of task {task!r}: mean {mean}, spread {spread}")
    if not calibration.tasks:
        raise InputError("a reward model without calibration; its reward.json holds no tasks")
    other = _middle(calibration)

    def reward(answered: Sequence[Answered]) -> list[float]:
        scores = score(answered)
        found = []
        for one, value in zip(answered, scores, strict=True):
            own = calibration.reward(value, label(one.record))
            found.append(other.reward(value, "") if own is None else own)
        return [math.nan if value is None else value for value in found]

    return reward


def _middle(calibration: Calibration) -> Calibration:
    """For what has no task of its own."""
    means, spreads = zip(*calibration.tasks.values(), strict=True)
    root = math.sqrt(statistics.fmean(spread * spread for spread in spreads))
    return calibration._replace(tasks={"": TaskScale(statistics.fmean(means), root)})


def emotion_change(feel: Reward, before: Callable[[Answered], Answered | None]) -> Reward:
    """By how much a simulated user feels better after a conversation than before it (as RLVER).

    Args:
      feel: how good the user feels at the end of a conversation, such as a judge in [0, 1].
      before: the conversation to compare with; None: the user began at 0.
    """

    def reward(answered: Sequence[Answered]) -> list[float]:
        after = list(feel(answered))
        earlier = [before(one) for one in answered]
        asked = [one for one in earlier if one is not None]
        felt = iter(feel(asked) if asked else [])
        return [
            now - (next(felt) if then is not None else 0.0)
            for now, then in zip(after, earlier, strict=True)
        ]

    return reward
